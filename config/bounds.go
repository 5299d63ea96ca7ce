package config

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// MaxFile is how many bytes a file of a configuration may have.
const MaxFile = 16 << 20

// What is beyond these is no configuration either, but a slip of the hand: a log, the output of a broken generator.
const (
	maxTotal        = 64 << 20 // bytes of all files
	maxTokens       = 4 << 20  // of all files; the parser takes some 350 bytes of memory for each
	maxNesting      = 200      // brackets and operators that lie in each other
	maxSyntaxErrors = 20       // that are shown of a file
)

// unfit returns why src must not be parsed, or nil. It adds to tokens, which is of all files so far, how many tokens
// src has at most. The parser has no bounds of its own: it calls itself for each bracket and operator, until the
// process ends because its stack is too large.
func unfit(name string, src []byte, tokens *int) *hcl.Diagnostic {
	problem := func(summary, detail string, args ...any) *hcl.Diagnostic {
		return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(detail, args...)}
	}
	if len(src) > MaxFile {
		return problem("Not a configuration",
			"%s has more than %d MiB. Name a file, or a directory that holds *.hcl files.", name, MaxFile>>20)
	}
	if at := notText(src); at >= 0 {
		line := 1 + bytes.Count(src[:at], []byte("\n"))
		return problem("Not a configuration",
			"%s is not UTF-8 text, in line %d. If it is a configuration, save it as UTF-8.", name, line)
	}
	if *tokens += tokensAtMost(src); *tokens > maxTokens {
		return problem("Too much configuration",
			"The files up to %s have more than %d words and signs together.", name, maxTokens)
	}
	if surelyShallow(src) {
		return nil // so is nearly every configuration, and the lexer need not run twice
	}
	at, broken := tooDeep(name, src)
	if broken != nil {
		d := problem("Invalid multi-line string",
			"A string ends in the line in which it begins. Is there a quotation mark missing?")
		d.Subject = broken
		return d
	}
	if at != nil {
		d := problem("Nested too deeply",
			"More than %d brackets and operators lie in each other here. Is it a configuration?", maxNesting)
		d.Subject = at
		return d
	}
	return nil
}

// notText returns the offset of the first byte that is not of UTF-8 text, or -1.
func notText(src []byte) int {
	for i := 0; i < len(src); {
		r, size := utf8.DecodeRune(src[i:])
		if r == 0 || r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// tokensAtMost returns how many tokens the lexer makes of src, or more. To ask the lexer would take the memory that is
// to be bounded. Each word and each sign counts. A comment behind # counts once, and so does a string, as long as it is
// certain what is one: from the first template, heredoc, other comment or string without an end on, all counts.
func tokensAtMost(src []byte) (n int) {
	certain, inWord := true, false
	for i := 0; i < len(src); i++ {
		c := src[i]
		if isWord(c) {
			if !inWord {
				n += 2 // 1a is two
			}
			inWord = true
			continue
		}
		inWord = false
		if isBlank(c) {
			if !certain && !isBlank(src[i-1]) {
				n++ // it may be in a string, which blanks are a part of
			}
			continue
		}
		n++
		switch {
		case !certain:
		case c == '#':
			i += lineLength(src[i:]) - 1
		case c == '"':
			length, parts := plainString(src[i+1:])
			i, n, certain = i+length, n+parts, length > 0
		case c == '/' || c == '<':
			certain = i+1 == len(src) || src[i+1] != '/' && src[i+1] != '*' && src[i+1] != '<'
		}
	}
	return n + 1 // the end
}

// plainString returns the length of the string that begins src, its closing quote included, and how many tokens it
// has. The length is zero if the string does not end in its line, or may be a template. The lexer takes a carriage
// return for the end of a line too.
func plainString(src []byte) (length, tokens int) {
	for i := 0; i < len(src) && src[i] != '\n' && src[i] != '\r'; i++ {
		switch src[i] {
		case '"':
			return i + 1, tokens + 2
		case '\\':
			i++
		case '$', '%':
			if i+1 < len(src) && src[i+1] == '{' {
				return 0, 0
			}
			tokens += 2
		}
	}
	return 0, 0
}

// surelyShallow reports whether tooDeep would find nothing in src. It takes little time and no memory, because it
// does not ask the lexer: each byte that is no part of a word counts like a sign there. False means that it does
// not know: where a string may not end in its line or may be a template, or where there is another kind of comment
// than #, a heredoc or a for expression.
func surelyShallow(src []byte) bool {
	type bracket struct {
		closing byte
		start   int // depth at which each of its items begins
	}
	outer := make([]bracket, 0, maxNesting)
	var in bracket
	depth := 0
	for i := 0; i < len(src); i++ {
		c := src[i]
		switch {
		case isWord(c):
			word := i
			for i+1 < len(src) && isWord(src[i+1]) {
				i++
			}
			if string(src[word:i+1]) == "for" {
				return false
			}
			continue
		case isBlank(c), c == '=' && (i+1 == len(src) || src[i+1] != '=' && src[i+1] != '>'):
			continue
		case c == '#':
			end := bytes.IndexByte(src[i:], '\n')
			if end < 0 {
				return true
			}
			i += end - 1 // the end of the line comes next
			continue
		case c == ',', c == '\n' && (in.closing == 0 || in.closing == '}'):
			depth = in.start
			continue
		case c == '\n':
			continue
		case in.closing != 0 && c == in.closing:
			depth = in.start
			in, outer = outer[len(outer)-1], outer[:len(outer)-1]
			continue
		case c == '/', c == '<', c == ')', c == ']', c == '}':
			return false
		case c == '"':
			length, _ := plainString(src[i+1:])
			if length == 0 {
				return false
			}
			i += length
		}
		if depth++; depth > maxNesting {
			return false
		}
		if at := bytes.IndexByte([]byte("([{"), c); at >= 0 {
			outer = append(outer, in)
			in = bracket{closing: ")]}"[at], start: depth}
		}
	}
	return true
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// isWord reports whether c is of a word or a number.
func isWord(c byte) bool { return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' }

// tooDeep returns the place in src where the parser would have called itself more than maxNesting times, or nil. It
// takes each sign that could make it do so for one that does: the brackets that are open, and of each item that is not
// complete the signs so far. Operators count because a chain of them (1+1+1) makes a tree as deep as it is long.
// A string that goes on in the next line, by which all that follows is misread, is returned as broken instead.
func tooDeep(name string, src []byte) (at, broken *hcl.Range) {
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos) // what is wrong, the parser says
	var outer []level
	in := level{byLine: true}
	for i := range tokens {
		t := &tokens[i]
		switch {
		case t.Type == hclsyntax.TokenQuotedNewline && broken == nil:
			broken = t.Range.Ptr()
		case t.Type == hclsyntax.TokenComma, endsLine(t) && in.byLine:
			in.depth = in.start
		case isPlain(t.Type):
		case closes(in.opened, t.Type):
			in, outer = outer[len(outer)-1], outer[:len(outer)-1]
		default:
			if in.depth++; in.depth > maxNesting {
				return t.Range.Ptr(), broken
			}
			if opens(t.Type) {
				outer = append(outer, in)
				in = level{opened: t.Type, byLine: byLine(t.Type, tokens[i+1:]), start: in.depth, depth: in.depth}
			}
		}
	}
	return nil, nil
}

// A level is what is between a bracket and its counterpart; that without a bracket is the whole file.
type level struct {
	opened hclsyntax.TokenType // zero: the whole file
	byLine bool                // the end of a line ends an item
	start  int                 // depth at which each of its items begins
	depth  int                 // of the present item
}

// byLine reports whether the end of a line ends an item between the bracket that opened a level and its counterpart;
// next are the tokens behind the bracket. So it is in a block and in an object, but for { for ... }.
func byLine(opened hclsyntax.TokenType, next hclsyntax.Tokens) bool {
	if opened != hclsyntax.TokenOBrace {
		return false
	}
	for i := range next {
		if t := next[i].Type; t != hclsyntax.TokenNewline && t != hclsyntax.TokenComment {
			return string(next[i].Bytes) != "for"
		}
	}
	return true
}

// endsLine reports whether a line ends with t. A comment behind # or // has the end of its line in it.
func endsLine(t *hclsyntax.Token) bool {
	return t.Type == hclsyntax.TokenNewline ||
		t.Type == hclsyntax.TokenComment && bytes.HasSuffix(t.Bytes, []byte("\n"))
}

// isPlain reports whether the parser takes t without calling itself.
func isPlain(t hclsyntax.TokenType) bool {
	switch t {
	case hclsyntax.TokenIdent, hclsyntax.TokenNumberLit, hclsyntax.TokenQuotedLit, hclsyntax.TokenStringLit,
		hclsyntax.TokenEqual, hclsyntax.TokenNewline, hclsyntax.TokenComment, hclsyntax.TokenQuotedNewline,
		hclsyntax.TokenEOF:
		return true
	}
	return false
}

func opens(t hclsyntax.TokenType) bool {
	switch t {
	case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
		hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
		return true
	}
	return false
}

// closes reports whether t is the counterpart of the bracket that opened a level.
func closes(opened, t hclsyntax.TokenType) bool {
	switch opened {
	case hclsyntax.TokenOBrace:
		return t == hclsyntax.TokenCBrace
	case hclsyntax.TokenOBrack:
		return t == hclsyntax.TokenCBrack
	case hclsyntax.TokenOParen:
		return t == hclsyntax.TokenCParen
	case hclsyntax.TokenOQuote:
		return t == hclsyntax.TokenCQuote
	case hclsyntax.TokenOHeredoc:
		return t == hclsyntax.TokenCHeredoc
	case hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
		return t == hclsyntax.TokenTemplateSeqEnd
	}
	return false
}
