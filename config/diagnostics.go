package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/lictor-proxy/lictor/internal/visible"
)

// Diagnostics are the problems of a configuration, together with the source files that they point to. In these sources,
// and in the output of the Write methods, possible secrets are replaced by asterisks and comments by blanks.
type Diagnostics struct {
	hcl.Diagnostics
	files sources
}

// Files returns the number of files that were read.
func (d *Diagnostics) Files() int { return len(d.files.files) }

// Extend adds diagnostics that point into the same source files.
func (d *Diagnostics) Extend(more hcl.Diagnostics) { d.Diagnostics = d.Diagnostics.Extend(more) }

// Err returns all errors among the diagnostics as one error, with a line and a place for each. It returns nil if there
// are no errors.
func (d Diagnostics) Err() error {
	lines := d.lines(hcl.DiagError)
	if len(lines) == 0 {
		return nil
	}
	return errors.New(strings.Join(lines, "\n"))
}

// Warnings returns one line, with its place, for each warning.
func (d Diagnostics) Warnings() []string { return d.lines(hcl.DiagWarning) }

func (d Diagnostics) lines(severity hcl.DiagnosticSeverity) (lines []string) {
	for _, one := range d.Diagnostics {
		if one.Severity != severity {
			continue
		}
		at := ""
		if one.Subject != nil {
			at = fmt.Sprintf("%s:%d: ", one.Subject.Filename, one.Subject.Start.Line)
		}
		lines = append(lines, fmt.Sprintf("%s%s: %s", at, one.Summary, one.Detail))
	}
	return lines
}

// WriteText writes each diagnostic with its source line.
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
		fmt.Fprintf(&b, "%s%s%s: %s\n", on, severity, off, visible.Text(diag.Summary))
		if s := d.files.snippet(diag.Subject); s != nil {
			s.writeText(&b, on, off)
		}
		fmt.Fprintf(&b, "\n  %s\n\n", visible.Lines(diag.Detail))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// sources holds the files of a configuration.
type sources struct {
	files map[string]*source
	first string // name of the first file
}

type source struct {
	text    []byte // as it was read; nil once all messages about it exist
	masked  []byte
	secrets []span      // parts of text, in order
	order   int         // number of files read before it
	blocks  []blockHead // of the top level, in order
}

// A blockHead is the type and the labels of a block, and the place of the whole block. The daemon keeps the
// diagnostics, and an *hclsyntax.Block would keep the parsed file in memory.
type blockHead struct {
	kind     string
	labels   []string
	from, to int // offsets
}

// add adds a file. The parsed file may be nil.
func (s *sources) add(name string, src []byte, file *hcl.File) {
	if len(s.files) == 0 {
		s.files, s.first = map[string]*source{}, name
	}
	one := &source{text: src, order: len(s.files)}
	one.masked, one.secrets = mask(src)
	s.files[name] = one
	if file != nil {
		if body, ok := file.Body.(*hclsyntax.Body); ok {
			for _, b := range body.Blocks {
				at := b.Range()
				one.blocks = append(one.blocks, blockHead{b.Type, b.Labels, at.Start.Byte, at.End.Byte})
			}
		}
	}
}

// start returns the first byte of the first file, or nil if there are no files.
func (s *sources) start() *hcl.Range {
	if len(s.files) == 0 {
		return nil
	}
	return &hcl.Range{Filename: s.first, Start: hcl.InitialPos, End: hcl.InitialPos}
}

// diagnostics sorts diags by file and line and makes them safe to show. It removes masked text of the lines that they
// point to from their messages. Lictor's own messages never contain such text, but a message of the HCL parser might.
func (s *sources) diagnostics(diags hcl.Diagnostics) Diagnostics {
	for _, d := range diags {
		d.Expression, d.EvalContext = nil, nil // the writers of package hcl would print values
		if scrub := s.scrubber(d); scrub != nil {
			d.Summary, d.Detail = scrub.Replace(d.Summary), scrub.Replace(d.Detail)
		}
	}
	for _, one := range s.files {
		one.text, one.secrets = nil, nil
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		if a.Subject == nil || b.Subject == nil {
			return boolInt(a.Subject != nil) - boolInt(b.Subject != nil)
		}
		if a.Subject.Filename != b.Subject.Filename {
			return s.files[a.Subject.Filename].order - s.files[b.Subject.Filename].order
		}
		return a.Subject.Start.Byte - b.Subject.Start.Byte
	})
	return Diagnostics{Diagnostics: diags, files: *s}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// minSecret is the least length of a masked word, in bytes, that is replaced in a message that does not quote it.
const minSecret = 6

// scrubber returns the replacer for the masked words in the lines that d points to. It returns nil if there are no such
// words. The replacer replaces quoted words, and long words anywhere.
func (s *sources) scrubber(d *hcl.Diagnostic) *strings.Replacer {
	var words []string
	for _, r := range []*hcl.Range{d.Subject, d.Context} {
		if r != nil && s.files[r.Filename] != nil {
			words = append(words, s.files[r.Filename].maskedWords(r)...)
		}
	}
	if len(words) == 0 {
		return nil
	}
	// A Replacer prefers the earlier of two words that begin at the same place: the longer word must come first.
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, word := range words {
		pairs = append(pairs, strconv.Quote(word), strconv.Quote(secretText))
		if len(word) >= minSecret {
			pairs = append(pairs, word, secretText)
		}
	}
	return strings.NewReplacer(pairs...)
}

// maskedWords returns the words of all secrets that overlap the lines of r.
func (s *source) maskedWords(r *hcl.Range) (words []string) {
	from := bytes.LastIndexByte(s.text[:min(max(r.Start.Byte, 0), len(s.text))], '\n') + 1
	to := min(max(r.End.Byte, from), len(s.text))
	to += lineLength(s.text[to:])
	first := sort.Search(len(s.secrets), func(i int) bool { return s.secrets[i].to > from })
	for _, secret := range s.secrets[first:] {
		if secret.from >= to {
			break
		}
		words = append(words, strings.FieldsFunc(string(s.text[secret.from:secret.to]),
			func(r rune) bool { return strings.ContainsRune("\"' \t\r\n", r) })...)
	}
	return words
}

// A snippet is the source line that a diagnostic points to, with the marked part.
type snippet struct {
	at       hcl.Range
	context  string // such as `service "web"`, or empty
	code     string
	from, to int // marked part of code, in bytes
}

// snippet returns the source line of r without the comment at its end, cut to maxSnippet bytes. It returns nil if r is
// nil or in no known file.
func (s *sources) snippet(r *hcl.Range) *snippet {
	if r == nil || s.files[r.Filename] == nil {
		return nil
	}
	src := s.files[r.Filename]
	start := min(max(r.Start.Byte, 0), len(src.masked))
	lineStart := bytes.LastIndexByte(src.masked[:start], '\n') + 1
	line := src.masked[lineStart:]
	line = bytes.TrimRight(line[:lineLength(line)], " \t\r\n") // a comment is blank
	sn := &snippet{at: *r}
	sn.from = min(start-lineStart, len(line))
	sn.to = min(max(r.End.Byte-lineStart, sn.from), len(line))
	if cut := max(sn.from-maxSnippet/2, 0); len(line) > maxSnippet {
		line = line[cut:min(cut+maxSnippet, len(line))]
		sn.from -= cut
		sn.to = min(sn.to-cut, len(line))
	}
	sn.code = string(line)
	sn.context = src.context(start)
	return sn
}

// context returns the header of the top-level block around an offset, such as `service "web"`, or "". It finds the
// block by binary search; the parser's own function looks at all blocks.
func (s *source) context(offset int) string {
	after := sort.Search(len(s.blocks), func(i int) bool { return s.blocks[i].from > offset })
	if after == 0 || offset >= s.blocks[after-1].to {
		return ""
	}
	block := s.blocks[after-1]
	text := block.kind
	if inner := language().inner(block.kind); inner != nil && inner.labelled {
		for _, label := range block.labels {
			text += fmt.Sprintf(" %q", label)
		}
	}
	return text
}

// maxSnippet is the longest part of a line that is shown, in bytes.
const maxSnippet = 200

func (s *snippet) writeText(b *bytes.Buffer, on, off string) {
	in := ""
	if s.context != "" {
		in = ", in " + s.context
	}
	before, marked, after := visible.Lines(s.code[:s.from]), visible.Lines(s.code[s.from:s.to]),
		visible.Lines(s.code[s.to:])
	fmt.Fprintf(b, "\n  %s:%d:%d%s\n", visible.Text(s.at.Filename), s.at.Start.Line, s.at.Start.Column, in)
	fmt.Fprintf(b, "  %4d | %s%s%s%s%s\n", s.at.Start.Line, before, on, marked, off, after)
	fmt.Fprintf(b, "       | %s%s%s%s\n", blank(before), on, strings.Repeat("^", max(1, len([]rune(marked)))), off)
}

// blank returns blanks as wide as text. Tabs stay tabs.
func blank(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, text)
}
