package config

import (
	"bytes"
	"slices"
	"strings"
)

// Diagnostics show source lines, and a source line may contain a secret: a valid one beside a mistake, or the mistake
// itself. The masker therefore shows only text that cannot be a secret: names, signs, and the values of known arguments
// that hold no secrets. Values of unknown arguments and text that the masker does not understand become asterisks, and
// comments become blanks.
//
// The masker finds the ends of values in the raw text, because a file that does not parse is shown too. When the masker
// is lost, it masks too much: it shows a value only directly after its argument's name, in the right block.

// A span is a part of a text, as byte offsets.
type span struct{ from, to int }

// mask returns a copy of src in which each byte that may be part of a secret is '*', and each byte of a comment is a
// blank. It also returns the masked parts, without comments. Offsets and lines stay the same.
func mask(src []byte) (masked []byte, secrets []span) {
	m := &masker{src: src, out: bytes.Clone(src), blocks: []*shape{language()}}
	m.pos = len(src) - len(bytes.TrimPrefix(src, []byte("\ufeff")))
	for m.pos < len(src) {
		m.statement()
	}
	return m.out, m.secrets
}

// A masker scans the text of one file.
type masker struct {
	src, out []byte
	secrets  []span   // masked parts that are not comments
	pos      int      // offset of the next byte to read
	endless  bool     // a heredoc without an end was found
	blocks   []*shape // open blocks, the outermost first; nil: the schema does not know it
}

// block returns the innermost open block, or nil if the schema does not know that block.
func (m *masker) block() *shape { return m.blocks[len(m.blocks)-1] }

// peek returns the byte at offset n from the current position, or zero after the end.
func (m *masker) peek(n int) byte {
	if m.pos+n < len(m.src) {
		return m.src[m.pos+n]
	}
	return 0
}

// has reports whether text follows at the current position.
func (m *masker) has(text string) bool { return bytes.HasPrefix(m.src[m.pos:], []byte(text)) }

// hide masks a possible secret between two offsets, except blanks and quotes, and records it.
func (m *masker) hide(from, to int) {
	if from < to {
		m.secrets = append(m.secrets, span{from, to})
		m.replace(from, to, "\" \t\r\n", '*')
	}
}

// replace replaces the bytes between two offsets by another one, except those in kept.
func (m *masker) replace(from, to int, kept string, by byte) {
	for i := from; i < to; i++ {
		if strings.IndexByte(kept, m.src[i]) < 0 {
			m.out[i] = by
		}
	}
}

// toLineEnd moves to the line feed that ends the current line, or to the end of the file.
func (m *masker) toLineEnd() {
	if i := bytes.IndexByte(m.src[m.pos:], '\n'); i >= 0 {
		m.pos += i
		return
	}
	m.pos = len(m.src)
}

// statement scans one statement: an argument, a comment, or the beginning or end of a block. It masks a line that is
// none of these.
func (m *masker) statement() {
	switch c := m.peek(0); {
	case isBlank(c) || c == '\n' || c == '\r':
		m.pos++
	case m.comment():
	case c == '}':
		m.pos++
		if len(m.blocks) > 1 {
			m.blocks = m.blocks[:len(m.blocks)-1]
		}
	case isName(c):
		m.named()
	default:
		m.strangeLine(m.pos)
	}
}

// strangeLine masks the rest of the line from an offset on.
func (m *masker) strangeLine(from int) {
	m.toLineEnd()
	m.hide(from, m.pos)
}

// commentMark returns the sign that begins a comment at the current position, or "".
func (m *masker) commentMark() string {
	for _, mark := range []string{"#", "//", "/*"} {
		if m.has(mark) {
			return mark
		}
	}
	return ""
}

// comment scans a comment and removes it. It reports whether there was a comment.
func (m *masker) comment() bool {
	mark := m.commentMark()
	if mark == "" {
		return false
	}
	from := m.pos
	m.pos += len(mark)
	if mark != "/*" {
		m.toLineEnd()
	} else if end := bytes.Index(m.src[m.pos:], []byte("*/")); end >= 0 {
		m.pos += end + len("*/")
	} else {
		m.pos = len(m.src)
	}
	m.replace(from, m.pos, "\t\r\n", ' ')
	return true
}

// isName reports whether c can be part of an argument's or block's name, misspelt names included.
func isName(c byte) bool { return isWord(c) || c == '-' || c == '.' || c >= 0x80 }

// name scans a name and the blanks after it, and returns the name.
func (m *masker) name() string {
	from := m.pos
	for isName(m.peek(0)) {
		m.pos++
	}
	name := string(m.src[from:m.pos])
	m.spaces()
	return name
}

func (m *masker) spaces() {
	for m.peek(0) == ' ' || m.peek(0) == '\t' {
		m.pos++
	}
}

// named scans a statement that begins with a name: an argument or the header of a block.
func (m *masker) named() {
	from := m.pos
	name := m.name()
	known, shown := m.block().argument(name)
	switch {
	case m.assigns():
		m.pos++
		m.value(shown)
	case known && m.peek(0) != '{': // the equals sign is missing
		m.value(shown)
	default:
		m.header(from, name)
	}
}

// assigns reports whether the sign between a name and its value follows. It accepts a colon too, because a colon is a
// common mistake.
func (m *masker) assigns() bool {
	return m.peek(0) == '=' && m.peek(1) != '=' || m.peek(0) == ':'
}

// header scans the labels of a block and its opening brace. It masks a line without a brace.
func (m *masker) header(from int, name string) {
	labels := m.pos
	inner := m.block().inner(name)
	m.toLineEnd()
	brace := bytes.IndexByte(m.src[labels:m.pos], '{')
	if brace < 0 {
		m.hide(from, m.pos)
		return
	}
	m.pos = labels + brace
	if inner == nil || !inner.labelled || bytes.IndexByte(m.src[labels:m.pos], '=') >= 0 {
		m.hide(labels, m.pos)
	}
	m.pos++
	m.blocks = append(m.blocks, inner)
}

// value scans the value of an argument, and masks it unless shown is true. The value ends with its line if no bracket
// is open, or before the brace that closes the block. A shown value also ends where the next argument begins, even
// inside a bracket, because a bracket or a quotation mark may be missing. For the same reason value masks the rest of a
// line where a second string or word follows without a sign between them.
func (m *masker) value(shown bool) {
	from := m.pos
	if shown {
		from = len(m.src)
	}
	defer func() { m.hide(from, m.pos) }()
	var open []byte // closing brackets that are expected
	var last byte   // last byte that is not blank; zero: none yet
	for m.pos < len(m.src) {
		c := m.src[m.pos]
		switch {
		case c == '\n':
			if len(open) == 0 && (shown || last != 0) {
				return
			}
			m.pos++
			last = ','
			if shown && m.beginsStatement() {
				return
			}
			continue
		case isBlank(c) || c == '\r':
			m.pos++
			continue
		case m.commentMark() != "":
			m.hide(from, m.pos)
			m.comment()
			from = max(from, m.pos)
			continue
		case shown && (c == '"' || isName(c)) && (last == '"' || isName(last)):
			m.strangeLine(m.pos)
			return
		case c == '"':
			if !m.quoted(shown) {
				return
			}
		case isName(c):
			if shown && m.beginsStatement() {
				return
			}
			m.name()
		case strings.IndexByte("([{", c) >= 0:
			open = append(open, map[byte]byte{'(': ')', '[': ']', '{': '}'}[c])
			m.pos++
		case len(open) > 0 && c == open[len(open)-1]:
			open = open[:len(open)-1]
			m.pos++
		case c == '}':
			return
		case m.has("<<") && m.heredoc(shown):
		default:
			m.pos++
		}
		last = c
	}
}

// beginsStatement reports whether an argument or a block seems to begin at the current position.
func (m *masker) beginsStatement() bool {
	ahead := &masker{src: m.src, pos: m.pos}
	ahead.spaces()
	return ahead.name() != "" && (ahead.assigns() || ahead.peek(0) == '{' || ahead.peek(0) == '"')
}

// quoted scans a string. If shown is true, it masks a user and password in the string. It returns false, at the end of
// the line, if the string does not end in its line.
func (m *masker) quoted(shown bool) bool {
	from, templates := m.pos, 0
	for m.pos++; m.pos < len(m.src) && m.src[m.pos] != '\n'; m.pos++ {
		switch c := m.src[m.pos]; {
		case c == '"' && templates == 0:
			m.pos++
			if shown {
				m.hideUser(from+1, m.pos-1)
			}
			return true
		case c == '\\' && m.peek(1) != '\n':
			m.pos++
		case (c == '$' || c == '%') && m.peek(1) == '{':
			templates++
			m.pos++
		case c == '}' && templates > 0:
			templates--
		}
	}
	m.pos = min(m.pos, len(m.src))
	if shown {
		m.hideUser(from+1, m.pos)
	}
	return false
}

// hideUser masks the user and password of an address between two offsets, if there are any.
func (m *masker) hideUser(from, to int) {
	text := m.src[from:to]
	at := bytes.LastIndexByte(text, '@')
	if at < 0 || bytes.IndexByte(text[:at], ':') < 0 { // a name alone, as in a mail address, is not masked
		return
	}
	user := 0
	if i := bytes.Index(text[:at], []byte("://")); i >= 0 {
		user = i + len("://")
	}
	m.hide(from+user, from+at)
}

// heredoc scans a heredoc and reports whether there was one; if not, the position stays. A masked heredoc without an
// end reaches to the end of the file. A heredoc without an end that would be shown does not count as a heredoc, and no
// later one in the file does, because its text may be anything.
func (m *masker) heredoc(shown bool) bool {
	if shown && m.endless {
		return false
	}
	rest := m.src[m.pos:]
	first := rest[:lineLength(rest)]
	marker := bytes.TrimSpace(bytes.TrimPrefix(first[2:], []byte("-")))
	if len(marker) == 0 || slices.ContainsFunc(marker, func(c byte) bool { return !isWord(c) }) {
		return false
	}
	for n := len(first); n < len(rest); {
		line := rest[n : n+lineLength(rest[n:])]
		if bytes.Equal(bytes.TrimSpace(line), marker) {
			m.pos += n + len(bytes.TrimRight(line, "\r\n"))
			return true
		}
		n += len(line)
	}
	if shown {
		m.endless = true
		return false
	}
	m.pos = len(m.src)
	return true
}

// lineLength returns the length of the first line of src, including its line feed.
func lineLength(src []byte) int {
	if i := bytes.IndexByte(src, '\n'); i >= 0 {
		return i + 1
	}
	return len(src)
}
