package discovery

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// trimmed returns the entries in body as encoding/json decodes them, after trim.
func trimmed(body []byte) ([]*entry, error) {
	entries, err := entriesIn(body)
	for _, e := range entries {
		fieldRule{}.store(e, nil)
		e.trim()
	}
	return entries, err
}

// Of a long answer, only the changed instances are parsed.
func TestOnlyWhatIsNewIsParsed(t *testing.T) {
	const n = 300
	f := newParser(fieldRule{})
	read := func(changed int) []*entry {
		t.Helper()
		body := []byte(largeAnswer(n, changed))
		if len(body) <= consul.SmallBody {
			t.Fatalf("%d bytes are too few for this test", len(body))
		}
		got, err := f.entriesIn(body)
		if err != nil {
			t.Fatal(err)
		}
		want, err := trimmed(body)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("differs from what encoding/json makes of it (-want +got):\n%s", diff)
		}
		return got
	}
	first := read(10)
	second := read(20)
	anew := 0
	for i := range second {
		if first[i] != second[i] {
			anew++
		}
	}
	if anew != 4 { // two instances changed each time
		t.Errorf("%d of %d instances were parsed anew, want 4", anew, n)
	}
	if _, err := f.entriesIn([]byte(entriesJSON("a 80"))); err != nil || f.entries != nil || f.size != 0 {
		t.Errorf("%v; of a short answer %d instances are kept", err, len(f.entries))
	}
	if third := read(20); third[0] == second[0] {
		t.Error("an instance of the last answer but one is still kept")
	}
}

// A parser returns the same entries as encoding/json, and fails on the same texts.
func TestFormerReadsWhatJSONIs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 5))
	f := newParser(fieldRule{})
	good := entriesJSON("a 80", "b 81", `c 82`, "d\\\"[{ 83")
	cases := []string{
		good, "[]", " [ ] ", "", "null", "{}", "[", "]", "[,]", "[{},]", "[{}{}]", "[{}] x", "[{]}", `["`, `["\`,
		"[[]]", "[null]", `[{"Service":3}]`, `[{"Node":{"Node":"a]"}}]`, "[{}],[{}]", "[{}]\n", "[\f]", "\u00a0[]",
	}
	for range 3000 {
		b := []byte(good)
		for range 1 + rnd.IntN(3) {
			i := rnd.IntN(len(b))
			switch rnd.IntN(3) {
			case 0:
				b[i] = `[]{},:"\ x1`[rnd.IntN(11)]
			case 1:
				b = append(b[:i], b[i+1:]...)
			default:
				b = append(b[:i], append([]byte{`[]{},"`[rnd.IntN(6)]}, b[i:]...)...)
			}
		}
		cases = append(cases, string(b))
	}
	valid := 0
	for _, text := range cases {
		body := []byte(text)
		want, wantErr := trimmed(body)
		got, err := f.parse(body)
		if (err == nil) != (wantErr == nil) || errors.Is(err, errNoList) != errors.Is(wantErr, errNoList) {
			t.Fatalf("%s: got %v, want %v", text, err, wantErr)
		}
		if err == nil {
			valid++
			if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
				t.Fatalf("%s: (-want +got):\n%s", text, diff)
			}
		}
	}
	if valid < 100 {
		t.Errorf("only %d of %d were lists", valid, len(cases))
	}
}

// The output of passing checks is dropped.
func TestWhatPassingChecksSayIsDropped(t *testing.T) {
	const checks = `{"Status":"passing","Notes":"n","Output":"o"},{"Status":"critical","Output":"o"}`
	entries, err := newParser(fieldRule{}).entriesIn([]byte(`[{"Checks":[` + checks + `]},null]`))
	if err != nil {
		t.Fatal(err)
	}
	if c := entries[0].Checks; c[0].Notes != "" || c[0].Output != "" || c[1].Output != "o" {
		t.Errorf("got %+v", c)
	}
}
