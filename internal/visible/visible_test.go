package visible

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// hidden has characters that must not reach a terminal: ASCII and C1 controls, line separators, direction marks,
// characters without width, fillers, tags and private characters.
const hidden = "\x00\r\x1b\x7f\u0080\u009b\u009f\u00ad\u034f\u061c\u115f\u180e\u200b\u200c\u200d\u200e\u200f\u2028" +
	"\u2029\u202a\u202e\u2060\u2064\u2066\u2069\u3164\ufe0f\ufeff\uffa0\ue000\U000e0001\U000e0041\U000e0100"

func TestText(t *testing.T) {
	const text = "web-1 ä 漢字 שלום \u00a0😀 e\u0301"
	if got := Text(text); got != text {
		t.Errorf("got %q, want %q", got, text)
	}
	for _, r := range hidden + "\t\n" {
		if got := Text("a" + string(r) + "b"); got != "a\ufffdb" {
			t.Errorf("%U: got %q", r, got)
		}
	}
	if got := Text("a\xffb"); got != "a\ufffdb" {
		t.Errorf("bytes that are no text: got %q", got)
	}
	if got := Lines("a\tb\n\x1b"); got != "a\tb\n\ufffd" {
		t.Errorf("got %q, want the tab and the line feed", got)
	}
}

func TestLabel(t *testing.T) {
	texts := []string{"web", `web\u009b`, "web\u009b", "web\u200b", "web\ufffd", "web\ufffd{9b}", "web{9b}", "wéb"}
	seen := map[string]string{}
	for _, text := range texts {
		label := Label(text)
		if other, is := seen[label]; is {
			t.Errorf("%q and %q have the same label", text, other)
		}
		seen[label] = text
		if Text(label) != label {
			t.Errorf("%q: got %q, which does not show", text, label)
		}
	}
	if got := Label("a\u009bb"); got != "a\ufffd{9b}b" {
		t.Errorf("got %q", got)
	}
}

func TestJSON(t *testing.T) {
	const text = "{\n\t\"a\": \"ä\"\n}\n"
	if got := JSON([]byte(text)); string(got) != text {
		t.Errorf("got %q, want %q", got, text)
	}
	if got, want := string(JSON([]byte("\"\u009b\U000e0041\""))), `"\u009b\udb40\udc41"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWriters(t *testing.T) {
	var b strings.Builder
	for _, w := range []interface{ Write([]byte) (int, error) }{NewWriter(&b), NewJSONWriter(&b)} {
		if n, err := w.Write([]byte("\"\u009b\"\n")); n != 5 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
	}
	if want := "\"\ufffd\"\n\"\\u009b\"\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

// FuzzVisible checks that no hidden character passes, and that JSON keeps its meaning.
func FuzzVisible(f *testing.F) {
	f.Add(hidden)
	f.Add("ä 漢字\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, text := range []string{Text(s), Label(s)} {
			for _, r := range text {
				if !Rune(r) {
					t.Errorf("%U is in %q", r, text)
				}
			}
		}
		plain, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		text := JSON(plain)
		var back, want string
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if err := json.Unmarshal(plain, &want); err != nil || back != want {
			t.Errorf("got %q, want %q (%v)", back, want, err)
		}
		if Text(string(text)) != string(text) || !utf8.Valid(text) {
			t.Errorf("what is hidden is in %q", text)
		}
	})
}
