package config

import (
	"bytes"
	"slices"
	"strings"
)

// Diagnostics show source lines, and a source line may hold a secret: a good one beside a mistake, or the mistake
// itself. So a line shows only what cannot be one: names, signs, and the values of arguments that the schema knows and
// that hold no secret. Comments, values of other arguments and whatever is not understood read as asterisks.
//
// Where a value begins and ends is decided on the raw text, because a file that does not parse is shown too. A masker
// that has lost its way masks too much: it shows a value only right behind the name of its argument, in its block.

// A span is where something stands in a text, in bytes.
type span struct{ from, to int }

// mask returns a copy of src in which every byte that may be of a secret is '*', and where those are, comments left
// out. Offsets, lines and columns stay.
func mask(src []byte) (masked []byte, secrets []span) {
	m := &masker{src: src, out: bytes.Clone(src), blocks: []*shape{language()}}
	m.pos = len(src) - len(bytes.TrimPrefix(src, []byte("\ufeff")))
	for m.pos < len(src) {
		m.statement()
	}
	return m.out, m.secrets
}

// A masker goes through the text of one file.
type masker struct {
	src, out []byte
	secrets  []span   // what is masked and no comment
	pos      int      // of the next byte to look at
	endless  bool     // a heredoc without an end was found
	blocks   []*shape // those that are open, from the outermost; nil: one that the schema does not know
}

// block returns the innermost block. It is nil if the schema does not know it.
func (m *masker) block() *shape { return m.blocks[len(m.blocks)-1] }

// peek returns the byte at offset n from here, or zero behind the end.
func (m *masker) peek(n int) byte {
	if m.pos+n < len(m.src) {
		return m.src[m.pos+n]
	}
	return 0
}

// has reports whether what follows begins with text.
func (m *masker) has(text string) bool { return bytes.HasPrefix(m.src[m.pos:], []byte(text)) }

// hide masks what may be a secret between two offsets.
func (m *masker) hide(from, to int) {
	if from < to {
		m.secrets = append(m.secrets, span{from, to})
		m.cover(from, to)
	}
}

// cover masks what is between two offsets. Blanks and quotes stay.
func (m *masker) cover(from, to int) {
	for i := from; i < to; i++ {
		if !strings.ContainsRune("\" \t\r\n", rune(m.src[i])) {
			m.out[i] = '*'
		}
	}
}

// toLineEnd goes to the end of the line, before its line feed.
func (m *masker) toLineEnd() {
	if i := bytes.IndexByte(m.src[m.pos:], '\n'); i >= 0 {
		m.pos += i
		return
	}
	m.pos = len(m.src)
}

// statement goes over one argument, comment, or beginning or end of a block; or over a line that is none of these.
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

// strangeLine masks the rest of the line, from an offset on.
func (m *masker) strangeLine(from int) {
	m.toLineEnd()
	m.hide(from, m.pos)
}

// commentMark returns the signs that begin a comment here, or an empty text.
func (m *masker) commentMark() string {
	for _, mark := range []string{"#", "//", "/*"} {
		if m.has(mark) {
			return mark
		}
	}
	return ""
}

// comment goes over a comment and masks it, but for the mark that begins it. It reports whether there was one.
func (m *masker) comment() bool {
	mark := m.commentMark()
	if mark == "" {
		return false
	}
	m.pos += len(mark)
	from := m.pos
	if mark != "/*" {
		m.toLineEnd()
	} else if end := bytes.Index(m.src[m.pos:], []byte("*/")); end >= 0 {
		m.pos += end + len("*/")
	} else {
		m.pos = len(m.src)
	}
	m.cover(from, m.pos)
	return true
}

// isName reports whether c is of the name of an argument or block, as people write them.
func isName(c byte) bool { return isWord(c) || c == '-' || c == '.' || c >= 0x80 }

// name goes over a name and the blanks behind it.
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

// named goes over a statement that begins with a name: an argument or the header of a block.
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

// assigns reports whether the sign between a name and its value follows. A colon is a common mistake.
func (m *masker) assigns() bool {
	return m.peek(0) == '=' && m.peek(1) != '=' || m.peek(0) == ':'
}

// header goes over the labels of a block and its opening brace. A line without a brace is strange.
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

// value goes over the value of an argument, and masks it unless it is to be shown. It ends with its line, if no bracket
// is open, or before the brace that ends the block. What is shown also ends where the next argument begins, whatever is
// open: a bracket or a quotation mark may be missing. For the same reason it masks what follows a string or a word
// without a sign between them.
func (m *masker) value(shown bool) {
	from := m.pos
	if shown {
		from = len(m.src)
	}
	defer func() { m.hide(from, m.pos) }()
	var open []byte // the brackets that are expected
	var last byte   // of what is not blank; zero: nothing so far
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

// beginsStatement reports whether an argument or block begins here, as far as its first words tell.
func (m *masker) beginsStatement() bool {
	ahead := &masker{src: m.src, pos: m.pos}
	ahead.spaces()
	return ahead.name() != "" && (ahead.assigns() || ahead.peek(0) == '{' || ahead.peek(0) == '"')
}

// quoted goes over a string, and masks a user and password in it. It returns false, at the end of the line, if the
// string does not end in its line.
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

// hideUser masks the user and password of an address that stands between two offsets, if there are any.
func (m *masker) hideUser(from, to int) {
	text := m.src[from:to]
	at := bytes.LastIndexByte(text, '@')
	if at < 0 || bytes.IndexByte(text[:at], ':') < 0 { // only a name, such as a mail address
		return
	}
	user := 0
	if i := bytes.Index(text[:at], []byte("://")); i >= 0 {
		user = i + len("://")
	}
	m.hide(from+user, from+at)
}

// heredoc goes over a heredoc. It returns false, and stays, if there is none. One without an end ends with the file if
// it is masked. What follows one that would be shown may be anything, so that is none, and neither are later ones.
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

// lineLength is the length of the first line of src with its end.
func lineLength(src []byte) int {
	if i := bytes.IndexByte(src, '\n'); i >= 0 {
		return i + 1
	}
	return len(src)
}
