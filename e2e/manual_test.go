//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// The manual pages contain the help and docs/configuration.md, and roff finds no error in them.
func TestManualPages(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	dir := t.TempDir()
	write := exec.Command("../packaging/man", lictorPath(t), dir)
	write.Env = environment()
	out, err := write.CombinedOutput()
	if err != nil {
		t.Fatalf("packaging/man: %v: %s", err, out)
	}
	read := func(path string) string {
		text, err := os.ReadFile(path)
		must(t, err)
		return string(text)
	}
	commands, configuration := read(filepath.Join(dir, "lictor.8")), read(filepath.Join(dir, "lictor.hcl.5"))
	if got, want := strings.Count(configuration, "\n.SS "),
		strings.Count(read("../docs/configuration.md"), "\n### "); got != want || want < 50 {
		t.Errorf("lictor.hcl(5) has %d arguments, docs/configuration.md %d", got, want)
	}
	for _, section := range []string{"SYNOPSIS", "LICTOR RUN", "LICTOR FORWARD", "LICTOR EXPLAIN", "LICTOR VALIDATE",
		"FILES", "ENVIRONMENT", "SIGNALS", "EXIT STATUS"} {
		if _, text, ok := strings.Cut(commands, ".SH "+section+"\n"); !ok || strings.HasPrefix(text, ".SH") {
			t.Errorf("lictor(8) has no section %s", section)
		}
	}
	for _, item := range []string{"LICTOR_ADMIN", "CONSUL_HTTP_ADDR", "CONSUL_NAMESPACE", "SIGHUP", "SIGUSR2"} {
		if !strings.Contains(commands, "\n.TP\n.B "+item+"\n") {
			t.Errorf("lictor(8) does not explain %s", item)
		}
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		return // the look is not checked
	}
	for _, page := range []string{"lictor.8", "lictor.hcl.5"} {
		cmd := exec.Command(groff, "-man", "-ww", "-Tutf8", "-rLL=80n", "-P-c", "-P-b", "-P-u", "-P-o",
			filepath.Join(dir, page))
		var complaints strings.Builder
		cmd.Stderr = &complaints
		text, err := cmd.Output()
		if err != nil || complaints.Len() > 0 {
			t.Errorf("groff says of %s: %v\n%s", page, err, complaints.String())
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimRight(line, "\n"); utf8.RuneCountInString(line) > 80 {
				t.Errorf("%s: wider than 80 columns: %s", page, line)
			}
		}
	}
}

// packaging/man-of-markdown turns the lists of an argument into roff. Fields have labels, text has bullets, and an item
// may continue in the next line.
func TestManualPageOfAList(t *testing.T) {
	cmd := exec.Command("../packaging/man-of-markdown")
	cmd.Stdin = strings.NewReader("### `name`\n\n- Type: text\n- See also: [other](#other)\n\nChooses one:\n\n" +
		"- `a`: first\n  and more\n- second\n\nEnd.\n")
	got, err := cmd.Output()
	must(t, err)
	const want = ".SS name\n.PD 0\n.IP \"Type:\" 16\ntext\n.IP \"See also:\" 16\nother\n.PD\n.PP\nChooses one:\n" +
		".PD 0\n.IP \"\\(bu\" 2\n\\fBa\\fR: first\nand more\n.IP \"\\(bu\" 2\nsecond\n.PD\n.PP\nEnd.\n"
	if string(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
