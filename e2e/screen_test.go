//go:build unix

package e2e

import (
	"html"
	"regexp"
	"strings"
	"testing"
)

// sgr matches the control sequences that change the look of text.
var sgr = regexp.MustCompile(`\x1b\[([0-9;]*)m`)

// screenHTML returns a page that looks like the screen of a terminal. It knows what Lictor uses: bold, dim, reversed,
// red and yellow.
func screenHTML(screen string) string {
	var b strings.Builder
	b.WriteString(`<!doctype html><meta charset="utf-8"><style>
body { margin: 0; padding: 14px 18px; background: #1b1d21; color: #d8dade; }
pre { margin: 0; font: 13px/19px "DejaVu Sans Mono", monospace; }
.bold { font-weight: bold; color: #fff } .dim { color: #8b9098 } .red { color: #ff6b60 }
.yellow { color: #e3b341 }
.reverse { background: #d8dade; color: #1b1d21 }
</style><pre>`)
	on := map[string]bool{}
	write := func(text string) {
		if text == "" {
			return
		}
		var classes []string
		for _, class := range []string{"bold", "dim", "red", "yellow", "reverse"} {
			if on[class] {
				classes = append(classes, class)
			}
		}
		b.WriteString(`<span class="` + strings.Join(classes, " ") + `">` + html.EscapeString(text) + `</span>`)
	}
	screen = strings.TrimRight(screen, "\n")
	at := 0
	for _, m := range sgr.FindAllStringSubmatchIndex(screen, -1) {
		write(screen[at:m[0]])
		at = m[1]
		for code := range strings.SplitSeq(screen[m[2]:m[3]], ";") {
			switch code {
			case "", "0":
				clear(on)
			case "1":
				on["bold"] = true
			case "2":
				on["dim"] = true
			case "7":
				on["reverse"] = true
			case "31":
				on["red"] = true
			case "33":
				on["yellow"] = true
			case "39":
				delete(on, "red")
				delete(on, "yellow")
			}
		}
	}
	write(screen[at:])
	b.WriteString("</pre>\n")
	return b.String()
}

func TestScreenHTML(t *testing.T) {
	anyEngine(t)
	page := screenHTML("\x1b[1mtop <b>\x1b[0m\n\x1b[7mname\x1b[0m \x1b[2;31mbad\x1b[39m dim\n\n")
	_, got, _ := strings.Cut(page, "<pre>")
	const want = `<span class="bold">top &lt;b&gt;</span><span class="">` + "\n" +
		`</span><span class="reverse">name</span><span class=""> </span>` +
		`<span class="dim red">bad</span><span class="dim"> dim</span></pre>` + "\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
