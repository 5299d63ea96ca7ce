// Package visible makes text from others safe to show: names from Consul, a server's answer, a line of a file.
//
//	fmt.Println(visible.Text(instance.ID))
//
// A terminal obeys some characters and hides others. Examples are escape sequences, single-character C1 controls that
// begin such a sequence, characters that change the direction of text, and characters without width. With such
// characters, a text can look like another one, or change earlier output. Letters, marks, numbers, signs and spaces of
// all scripts stay unchanged.
//
// The package does not detect letters that look like others.
package visible

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Rune reports whether r is visible and has no other effect. Line feeds and tabs are not visible.
func Rune(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r != 0x7f
	}
	ignorable := unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
	return unicode.IsGraphic(r) && !ignorable
}

// Text returns s with U+FFFD in place of each invisible character and each invalid byte.
func Text(s string) string { return keeping(s, "") }

// Lines is Text, but keeps line feeds and tabs.
func Lines(s string) string { return keeping(s, "\n\t") }

func keeping(s, kept string) string {
	return strings.Map(func(r rune) rune {
		if Rune(r) || r < utf8.RuneSelf && strings.ContainsRune(kept, r) {
			return r
		}
		return utf8.RuneError
	}, s)
}

// Label returns s with each invisible character replaced by a description. Different texts have different labels.
func Label(s string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if Rune(r) && r != utf8.RuneError {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "%c{%x}", utf8.RuneError, r)
		}
	}
	return b.String()
}

// plain reports whether s has only visible ASCII characters.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// JSON returns JSON with the same meaning as text, which must be JSON. JSON escapes invisible characters in strings,
// such as \u009b. JSON may return text itself.
func JSON(text []byte) []byte {
	first := invisible(text)
	if first == len(text) {
		return text
	}
	out := append(make([]byte, 0, len(text)+64), text[:first]...)
	for first < len(text) {
		r, size := utf8.DecodeRune(text[first:])
		switch {
		case r < utf8.RuneSelf && r != 0x7f || Rune(r):
			out = append(out, text[first:first+size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		first += size
	}
	return out
}

// invisible returns the offset of the first byte of text that JSON may have to escape, or the length of text.
func invisible(text []byte) int {
	for i := 0; i < len(text); {
		if text[i] < 0x7f {
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		if !Rune(r) {
			return i
		}
		i += size
	}
	return len(text)
}

// NewWriter returns a writer that applies Lines to each text and writes the result to w. A character must not be split
// between two texts.
func NewWriter(w io.Writer) io.Writer {
	return writer{w, func(text []byte) []byte { return []byte(Lines(string(text))) }}
}

// NewJSONWriter returns a writer that applies JSON to each text and writes the result to w. A character must not be
// split between two texts.
func NewJSONWriter(w io.Writer) io.Writer { return writer{w, JSON} }

type writer struct {
	io.Writer
	change func([]byte) []byte
}

// Write returns the length of text if the whole changed text was written, and zero otherwise.
func (w writer) Write(text []byte) (int, error) {
	if _, err := w.Writer.Write(w.change(text)); err != nil {
		return 0, err
	}
	return len(text), nil
}

// Unwrap returns the underlying writer.
func (w writer) Unwrap() io.Writer { return w.Writer }
