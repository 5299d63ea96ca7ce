package config

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// shownFor returns how a problem at r of src is shown if nothing in src is masked.
func shownFor(src string, r *hcl.Range) string {
	s := sources{}
	s.add("web.hcl", []byte(src), nil)
	s.files["web.hcl"].masked = []byte(src)
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Bad", Detail: "Do it.", Subject: r}
	return textOf(s.diagnostics(hcl.Diagnostics{d}))
}

// at returns the range from byte from to byte to of one line. The line begins at byte start.
func at(line, start, from, to int) *hcl.Range {
	return &hcl.Range{
		Filename: "web.hcl",
		Start:    hcl.Pos{Line: line, Column: from - start + 1, Byte: from},
		End:      hcl.Pos{Line: line, Column: to - start + 1, Byte: to},
	}
}

// The wrong part of a line is marked below the line, whatever the line contains.
func TestSnippets(t *testing.T) {
	long := strings.Repeat("a", 150) + "WRONG" + strings.Repeat("b", 300)
	for _, tt := range []struct {
		name, src string
		at        *hcl.Range
		want      string
	}{
		{"nowhere", "a = 1\n", nil, "Error: Bad\n\n  Do it.\n\n"},
		{"in another file", "a = 1\n", &hcl.Range{Filename: "api.hcl"}, "Error: Bad\n\n  Do it.\n\n"},
		{"a word", "a = 1\nb = x\n", at(2, 6, 10, 11),
			"Error: Bad\n\n  web.hcl:2:5\n     2 | b = x\n       |     ^\n\n  Do it.\n\n"},
		{"behind tabs", "\ta\t= x\n", at(1, 0, 5, 6),
			"Error: Bad\n\n  web.hcl:1:6\n     1 | \ta\t= x\n       | \t \t  ^\n\n  Do it.\n\n"},
		{"behind letters of two bytes", "ää = x\n", at(1, 0, 7, 8),
			"Error: Bad\n\n  web.hcl:1:8\n     1 | ää = x\n       |      ^\n\n  Do it.\n\n"},
		{"nothing, at the end", "a =", at(1, 0, 3, 3),
			"Error: Bad\n\n  web.hcl:1:4\n     1 | a =\n       |    ^\n\n  Do it.\n\n"},
		{"more than a line", "a = [\n1\n]\n", at(1, 0, 4, 9),
			"Error: Bad\n\n  web.hcl:1:5\n     1 | a = [\n       |     ^\n\n  Do it.\n\n"},
		{"behind the end", "a\n", at(9, 50, 60, 70),
			"Error: Bad\n\n  web.hcl:9:11\n     9 | \n       | ^\n\n  Do it.\n\n"},
		{"with line ends of Windows", "a = x\r\nb = y\r\n", at(1, 0, 4, 5),
			"Error: Bad\n\n  web.hcl:1:5\n     1 | a = x\n       |     ^\n\n  Do it.\n\n"},
		{"beside control characters", "a = \x1bx\x7f\n", at(1, 0, 5, 6),
			"Error: Bad\n\n  web.hcl:1:6\n     1 | a = \ufffdx\ufffd\n       |      ^\n\n  Do it.\n\n"},
		{"in a long line", long, at(1, 0, 150, 155),
			"Error: Bad\n\n  web.hcl:1:151\n     1 | " + long[50:250] + "\n       | " + strings.Repeat(" ", 100) +
				"^^^^^\n\n  Do it.\n\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := shownFor(tt.src, tt.at); got != tt.want {
				t.Errorf("got:\n%q\nwant:\n%q", got, tt.want)
			}
		})
	}
}

// Problems are in the order of files and lines. Problems without a place come first.
func TestOrderOfProblems(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := write("z.hcl", "service \"web\" {\n  listen = 0.5\n}\ncolour = 1\n")
	second := write("a.hcl", "colour = 2\nservice \"api\" {\n  listen = \"x\"\n}\n")
	_, diags := Load([]string{first, filepath.Join(dir, "none.hcl"), second}, Options{})
	var got []string
	for _, line := range strings.Split(diags.Err().Error(), "\n") {
		line, _, _ = strings.Cut(strings.ReplaceAll(line, dir+string(filepath.Separator), ""), ": ")
		got = append(got, line)
	}
	want := []string{"Unreadable configuration", "z.hcl:2", "z.hcl:4", "a.hcl:1", "a.hcl:3"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A warning is not an error, in both formats.
func TestErrorsAndWarningsAreToldApart(t *testing.T) {
	_, diags := loadText("service \"web\" {\n  listen = 9000\n  max_fails = 0\n}\ncolour = 1\n", nil)
	if got := diags.Warnings(); len(got) != 1 || !strings.HasPrefix(got[0], "test.hcl:3: Old spelling: max_fails: ") {
		t.Errorf("got warnings %q", got)
	}
	if got := diags.Err().Error(); !strings.HasPrefix(got, "test.hcl:5: Unsupported argument: ") ||
		strings.Contains(got, "\n") {
		t.Errorf("got the errors %q", got)
	}
	var b strings.Builder
	if err := diags.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var shown struct {
		Valid                    bool
		ErrorCount, WarningCount int
		Diagnostics              []struct{ Severity string }
	}
	text := strings.NewReplacer("error_count", "errorCount", "warning_count", "warningCount").Replace(b.String())
	if err := json.Unmarshal([]byte(text), &shown); err != nil || shown.Valid || shown.ErrorCount != 1 ||
		shown.WarningCount != 1 || len(shown.Diagnostics) != 2 || shown.Diagnostics[0].Severity != "warning" {
		t.Errorf("got %+v, %v", shown, err)
	}
}

// Diagnostics that are added later, such as Consul's answers, are shown with their source line too.
func TestExtendShowsTheLine(t *testing.T) {
	cfg, diags := loadText("service \"web\" {\n  listen = 9000\n  consul {\n    filter = \"a == b\"\n  }\n}\n", nil)
	if cfg == nil {
		t.Fatal(textOf(diags))
	}
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Query refused", Detail: "No.",
		Subject: cfg.Services[0].Consul.FilterRange.Ptr()}
	diags.Extend(hcl.Diagnostics{d})
	want := "Error: Query refused\n\n  test.hcl:4:14, in service \"web\"\n     4 |     filter = \"a == b\"\n" +
		"       |              ^^^^^^^^\n\n  No.\n\n"
	if got := textOf(diags); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, os.ErrInvalid }

func TestDiagnosticsThatAreLost(t *testing.T) {
	_, diags := loadText("colour = 1\n", nil)
	if err := diags.WriteText(fullDisk{}, false); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("text: got %v", err)
	}
	if err := diags.WriteJSON(fullDisk{}); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("JSON: got %v", err)
	}
	c := Compare(&Config{}, &Config{LogLevel: "warn"})
	if err := c.Write(fullDisk{}); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("changes: got %v", err)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"listen", "protocol", "max_fails", "max_queue", "warn", "tags"}
	for given, want := range map[string]string{
		"lisen": "listen", "Listen": "listen", "LISTEN": "listen", "listne": "listen", "protcl": "protocol",
		"max_fail": "max_fails", "max_quue": "max_queue", "warning": "warn", "war": "warn", "tag": "tags",
		"": "", "x": "", "colour": "", "max": "max_fails", "ta": "tags", "lstn": "listen", "lst": "",
	} {
		if got := Nearest(given, names); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
	for want, list := range map[string][]string{
		``: nil, `"a"`: {"a"}, `"a" or "b"`: {"a", "b"}, `"a", "b" or "c"`: {"a", "b", "c"},
	} {
		if got := either(list); got != want {
			t.Errorf("%q: got %s, want %s", list, got, want)
		}
	}
}
