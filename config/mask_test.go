package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/internal/visible"
)

// What is masked depends on its place in the file, never on its text.
func TestMask(t *testing.T) {
	const consul = "consul {\n"
	for _, tt := range []struct{ name, src, want string }{
		{"a token", consul + `token = "abc" # x`, consul + `token = "***"    `},
		{"with its line", consul + "token = \"abc\"\nregister = 1\n", consul + "token = \"***\"\nregister = 1\n"},
		{"on the next line", consul + "token =\n  \"abc\"\n", consul + "token =\n  \"***\"\n"},
		{"with a carriage return", consul + "token =\r\n  \"abc\"\r\n", consul + "token =\r\n  \"***\"\r\n"},
		{"without an end", consul + "token = \"abc\nregister = 1\n", consul + "token = \"***\nregister = 1\n"},
		{"over two lines", consul + "token = \"abc\ndef\"\n", consul + "token = \"***\n***\"\n"},
		{"in one line", `consul { token = "abc" }`, `consul { token = "***" }`},
		{"behind a comma", `consul { register = 1, token = "abc" }`, `consul { register = 1, token = "***" }`},
		{"without the sign", consul + "token \"abc\"\n", consul + "token \"***\"\n"},
		{"a list", consul + "token = [\n\"abc\",\n\"def\"\n]\n}", consul + "token = *\n\"***\"*\n\"***\"\n*\n}"},
		{"an open list", consul + "token = [\n\"abc\"\n}", consul + "token = *\n\"***\"\n}"},
		{"a heredoc", consul + "token = <<EOT\nabc\nEOT\n}", consul + "token = *****\n***\n***\n}"},
		{"letters of two bytes", consul + `token = "ä"`, consul + `token = "**"`},
		{"misspelt", consul + `tokne = "abc"`, consul + `tokne = "***"`},
		{"an unknown argument", consul + `bearer = "abc"`, consul + `bearer = "***"`},
		{"an argument of another block", consul + `listen = "abc"`, consul + `listen = "***"`},
		{"in an unknown block", "auth {\nlisten = 1\n}\nengine = 1", "auth {\nlisten = *\n}\nengine = 1"},
		{"a label", `service "web" {`, `service "web" {`},
		{"a label without a meaning", `consul "abc" {`, `consul "***" {`},
		{"a datagram", "service \"a\" {\ncheck { send = \"abc\" }", "service \"a\" {\ncheck { send = \"***\" }"},
		{"a user", consul + `address = "http://me:abc@h:1"`, consul + `address = "http://******@h:1"`},
		{"a user without a scheme", consul + `address = "me:abc@h:1"`, consul + `address = "******@h:1"`},
		{"a comment", "# token = 1\n// a\n/* b\nc */ engine = 1", "           \n    \n    \n     engine = 1"},
		{"two strings", `engine = "a" "b"`, `engine = "a" "*"`},
		{"a line without a meaning", "\"token\" = 1\nabc\n", "\"*****\" * *\n***\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if masked, _ := mask([]byte(tt.src)); string(masked) != tt.want {
				t.Errorf("got\n%s\nwant\n%s", masked, tt.want)
			}
		})
	}
}

func TestMaskKeepsWhatIsNoSecret(t *testing.T) {
	for _, source := range []string{
		"consul {\n  token_file = \"/etc/lictor/token\"\n  address = \"https://consul.example.com:8501\"\n}",
		"\ufeffengine = \"auto\"\nservice \"token\" { listen = 1 }",
		"service \"a\" {\n  consul {\n    filter = \"Service.Meta.token == `x`\"\n    near = \"_agent\"\n  }\n}",
		"service \"a\" {\n  consul {\n    filter = <<EOT\nService.Meta.token == 1\nEOT\n    tags = [\"v2\"]\n  }\n}",
		"service \"a\" {\n  listen = [\n    \"127.0.0.1:9000\",\n    \"[::1]:9000\",\n  ]\n}",
		"service \"a\" {\n  hold_max = \"1s\"\n  on_leave {\n    critical = \"cut\"\n  }\n  listen = 1\n}",
		"consul {\n  tls { ca_file = \"x\" }\n  datacenter = \"a\"\n}",
		"service \"a\" {\n  max_age = true ? 1\n  listen = -1\n}",
	} {
		want := strings.Replace(source, "hold_max = \"1s\"", "hold_max = \"**\"", 1) // the argument of the consul block
		if masked, _ := mask([]byte(source)); string(masked) != want {
			t.Errorf("got %s, want %s", masked, want)
		}
	}
}

// A comment after a secret does not reach the messages. A masked word is removed only from messages that point to its
// line.
func TestMessagesLoseOnlyWhatTheyPointTo(t *testing.T) {
	src := "consul {\n  token = [\"lictor\"] # then: systemctl enable lictor\n}\n" +
		"service \"lictor\" {\n  listen = \"lictor:1\"\n}\n" +
		"consul { token = abcdef() }\n"
	_, diags := loadText(src, nil)
	text := textOf(diags)
	if !strings.Contains(text, `"lictor" is not an IP address`) || !strings.Contains(text, `in service "lictor"`) {
		t.Errorf("text that is not secret is hidden:\n%s", text)
	}
	if strings.Contains(text, "enable") || strings.Contains(text, "abcdef") {
		t.Errorf("text that may be secret shows:\n%s", text)
	}
}

// A shown line ends before its comment. A diagnostic may point into the comment.
func TestMessagesLoseComments(t *testing.T) {
	const rest = "\nservice \"web\" { listen = 1 }\n"
	for src, want := range map[string]string{
		"log_level = \"loud\" # the \"old\" one" + rest: "   1 | log_level = \"loud\"\n",
		"log_level = /* old */ \"loud\"" + rest:         "   1 | log_level =           \"loud\"\n",
		rest + "/* \"old\"":                             "   3 | \n",
	} {
		_, diags := loadText(src, nil)
		if text := textOf(diags); !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// Control characters and invisible characters in a file, and in Consul's messages, are made visible.
func TestMessagesAreVisible(t *testing.T) {
	const hidden = "\u009b2J\u202e\u200b"
	_, diags := loadText("log_level = \""+hidden+"\"\nservice \"web\" { listen = 1 }\n", nil)
	diags.Extend(hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Refused", Detail: "it says\n\x1b[2J" + hidden}})
	var text, asJSON strings.Builder
	if err := errors.Join(diags.WriteText(&text, false), diags.WriteJSON(&asJSON)); err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{text.String(), asJSON.String()} {
		if visible.Lines(got) != got {
			t.Errorf("got %q", got)
		}
	}
	for _, want := range []string{"log_level = \"\ufffd2J\ufffd\ufffd\"", "           ^^^^^^^", "it says\n\ufffd[2J"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in %s", want, &text)
		}
	}
}

// The masker reads each byte only a few times. Otherwise a broken file could take hours.
func TestMaskOfManyUnfinishedThings(t *testing.T) {
	const n = 50_000
	for _, line := range []string{"token = [\"secret\",\n", "consul { token = <<A\n", "engine = <<A\n", "/*\n",
		"engine = [\n", "engine = \"${\n", "consul {\n"} {
		src := []byte(strings.Repeat(line, n))
		masked, _ := mask(src)
		if len(masked) != len(src) || strings.Contains(string(masked), "secret") {
			t.Errorf("%q: a secret shows", line)
		}
	}
}

// FuzzMask checks that the masked text has the same length, and that a secret never shows, wherever it is put.
func FuzzMask(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*/*.hcl")
	for _, path := range paths {
		src, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(src), "  datacenter = \"x\"\n")
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "8a6bf0c2-1d2e-4f3a"
		src := before + "\nconsul {\n  token = \"" + secret + "\"\n" + after
		masked, secrets := mask([]byte(src))
		if len(masked) != len(src) {
			t.Errorf("got %d masked bytes for %d bytes", len(masked), len(src))
		}
		if strings.Contains(string(masked), secret) && !heredocMayBeOpen(before) {
			t.Errorf("the secret shows:\n%s", masked)
		}
		if utf8.ValidString(src) && !utf8.Valid(masked) {
			t.Error("the masked text is not valid UTF-8")
		}
		for _, s := range secrets {
			if s.from < 0 || s.from > s.to || s.to > len(src) {
				t.Errorf("got a secret from %d to %d of %d bytes", s.from, s.to, len(src))
			}
		}
	})
}

// heredocMayBeOpen reports whether the end of src may be in a heredoc. A token after it would then be text of another
// argument.
func heredocMayBeOpen(src string) bool { return strings.Contains(src, "<<") }
