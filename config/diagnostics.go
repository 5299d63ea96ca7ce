package config

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Diagnostics are the problems of a configuration and the sources that they point to. In those sources, and so in everything that the
// Write methods write, what may be a secret reads as asterisks.
type Diagnostics struct {
	hcl.Diagnostics
	files sources
}

// Extend adds diagnostics that point into the same sources.
func (d *Diagnostics) Extend(more hcl.Diagnostics) { d.Diagnostics = d.Diagnostics.Extend(more) }

// WriteText writes each diagnostic with the line that it points to.
func (d Diagnostics) WriteText(w io.Writer, color bool) error {
	var b bytes.Buffer
	for _, diag := range d.Diagnostics {
		severity, on, off := "Error", "", ""
		if diag.Severity == hcl.DiagWarning {
			severity = "Warning"
		}
		if color {
			on, off = "\x1b[1;31m", "\x1b[0m"
			if severity == "Warning" {
				on = "\x1b[1;33m"
			}
		}
		fmt.Fprintf(&b, "%s%s%s: %s\n", on, severity, off, diag.Summary)
		if s := d.files.snippet(diag.Subject); s != nil {
			s.writeText(&b, on, off)
		}
		fmt.Fprintf(&b, "\n  %s\n\n", diag.Detail)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// sources are files by name.
type sources map[string]*source

type source struct {
	masked  []byte
	secrets []string
	order   int // in which it was read
	nav     any // says in which block an offset lies; may be nil
}

func (s sources) add(name string, src []byte, file *hcl.File) {
	masked, secrets := mask(src)
	s[name] = &source{masked: masked, secrets: secrets, order: len(s)}
	if file != nil {
		s[name].nav = file.Nav
	}
}

// start is the first byte of the first file; nil without files.
func (s sources) start() *hcl.Range {
	for name, src := range s {
		if src.order == 0 {
			return &hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}
		}
	}
	return nil
}

// diagnostics orders diags by file and line, and makes them safe to show.
func (s sources) diagnostics(diags hcl.Diagnostics) Diagnostics {
	for _, d := range diags {
		d.Expression, d.EvalContext = nil, nil // hcl's writers would print values
		d.Summary, d.Detail = s.scrub(d.Summary), s.scrub(d.Detail)
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		if a.Subject == nil || b.Subject == nil {
			return boolInt(a.Subject != nil) - boolInt(b.Subject != nil)
		}
		if a.Subject.Filename != b.Subject.Filename {
			return s[a.Subject.Filename].order - s[b.Subject.Filename].order
		}
		return a.Subject.Start.Byte - b.Subject.Start.Byte
	})
	return Diagnostics{Diagnostics: diags, files: s}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// scrub takes what was masked in the sources out of a message. Our own messages never hold such text; a parser's might.
func (s sources) scrub(message string) string {
	for _, src := range s {
		for _, secret := range src.secrets {
			message = strings.ReplaceAll(message, secret, secretText)
		}
	}
	return message
}

// A snippet is the line that a diagnostic points to, and where in it.
type snippet struct {
	at       hcl.Range
	context  string // such as `service "web"`; may be empty
	code     string
	from, to int // bytes of code
}

// snippet is nil when r is, or lies in no known file.
func (s sources) snippet(r *hcl.Range) *snippet {
	if r == nil || s[r.Filename] == nil {
		return nil
	}
	src := s[r.Filename]
	start := min(max(r.Start.Byte, 0), len(src.masked))
	lineStart := bytes.LastIndexByte(src.masked[:start], '\n') + 1
	line := src.masked[lineStart:]
	line = bytes.TrimRight(line[:lineLength(line)], "\r\n")
	sn := &snippet{at: *r}
	sn.from = min(start-lineStart, len(line))
	sn.to = min(max(r.End.Byte-lineStart, sn.from), len(line))
	if cut := max(sn.from-maxSnippet/2, 0); len(line) > maxSnippet {
		line = line[cut:min(cut+maxSnippet, len(line))]
		sn.from -= cut
		sn.to = min(sn.to-cut, len(line))
	}
	sn.code = strings.Map(printable, string(line))
	if nav, ok := src.nav.(interface{ ContextString(int) string }); ok {
		sn.context = s.scrub(nav.ContextString(start))
	}
	return sn
}

// maxSnippet is how much of a line is shown, in bytes.
const maxSnippet = 200

// printable keeps control characters, of one byte each, from the terminal.
func printable(r rune) rune {
	if r != '\t' && (r < ' ' || r == 0x7f) {
		return '?'
	}
	return r
}

func (s *snippet) writeText(b *bytes.Buffer, on, off string) {
	in := ""
	if s.context != "" {
		in = ", in " + s.context
	}
	fmt.Fprintf(b, "\n  %s:%d:%d%s\n", s.at.Filename, s.at.Start.Line, s.at.Start.Column, in)
	fmt.Fprintf(b, "  %4d | %s%s%s%s%s\n", s.at.Start.Line, s.code[:s.from], on, s.code[s.from:s.to], off, s.code[s.to:])
	fmt.Fprintf(b, "       | %s%s%s%s\n", blank(s.code[:s.from]), on, strings.Repeat("^", max(1, len([]rune(s.code[s.from:s.to])))), off)
}

// blank is as wide as text, tabs kept.
func blank(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, text)
}
