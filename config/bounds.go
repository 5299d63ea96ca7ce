package config

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// MaxFile is the largest size of a configuration file, in bytes.
const MaxFile = 16 << 20

// Bounds that no real configuration reaches. Input beyond them is a mistake, such as a log or the output of a broken
// generator.
const (
	maxTotal        = 64 << 20 // bytes, of all files together
	maxTokens       = 4 << 20  // of all files together; the parser takes some 350 bytes of memory for each
	maxNesting      = 200      // nested brackets and operators
	maxSyntaxErrors = 20       // shown for each file
)

// unfit returns why src must not be parsed, or nil. It adds an upper bound of the number of src's tokens to tokens,
// which counts all files so far. The parser has no bounds of its own: it recurses at each bracket and operator, until a
// stack overflow ends the process.
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
			"All files up to %s together have more than %d words and signs. "+
				"Are all of them configurations?", name, maxTokens)
	}
	if surelyShallow(src) {
		return nil // nearly every configuration is shallow, and the lexer need not run twice
	}
	at, broken := tooDeep(name, src)
	if broken != nil {
		d := problem("Invalid multi-line string",
			"A string must end in the line where it begins. Is a quotation mark missing?")
		d.Subject = broken
		return d
	}
	if at != nil {
		d := problem("Nested too deeply",
			"More than %d brackets and operators are nested here. Is this file a configuration?", maxNesting)
		d.Subject = at
		return d
	}
	return nil
}

// notText returns the offset of the first byte of src that is not UTF-8 text, or -1. A zero byte is not text.
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

// tokensAtMost returns an upper bound of the number of tokens that the lexer finds in src. The lexer itself would take
// the memory that is to be bounded. Each word and each sign counts as a token. A comment after # and a plain string
// count as a whole while the scan is certain where they end. After the first template, heredoc, other comment or
// unterminated string the scan is uncertain: every word and sign then counts.
func tokensAtMost(src []byte) (n int) {
	certain, inWord := true, false
	for i := 0; i < len(src); i++ {
		c := src[i]
		if isWord(c) {
			if !inWord {
				n += 2 // the lexer reads 1a as two tokens
			}
			inWord = true
			continue
		}
		inWord = false
		if isBlank(c) {
			if !certain && !isBlank(src[i-1]) {
				n++ // the blanks may be inside a string, where they are a token
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
	return n + 1 // the token at the end of the file
}

// plainString returns the length of the string whose opening quote is before src, closing quote included, and its
// number of tokens. The length is zero if the string does not end in its line or may be a template. A carriage return
// ends a line too, as it does for the lexer.
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

// surelyShallow reports whether tooDeep would surely find nothing in src. It takes little time and no memory, because
// it does not use the lexer. Each byte outside words counts like a sign for tooDeep. False means that surelyShallow
// does not know. That is so for a string that may be a template or may not end in its line, for a
// heredoc, for a for expression, and for a comment that does not begin with #.
func surelyShallow(src []byte) bool {
	type bracket struct {
		closing byte
		start   int // depth at which each item between the brackets begins
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
			i += end - 1 // the loop goes on with the end of the line
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

// isWord reports whether c can be part of a word or a number.
func isWord(c byte) bool { return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' }

// tooDeep returns the place in src where the parser would have recursed more than maxNesting times, or nil. It assumes
// that the parser recurses at every sign that can make it recurse: at each open bracket, and at each sign so far of
// each unfinished item. Operators count, because a chain of them (1+1+1) makes a syntax tree as deep as the chain is
// long. If a string goes on in the next line, the rest of src is misread. tooDeep then returns the place of that string
// as broken.
func tooDeep(name string, src []byte) (at, broken *hcl.Range) {
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos) // the parser reports lexical errors later
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

// A level is the text between a bracket and its counterpart, or the whole file.
type level struct {
	opened hclsyntax.TokenType // zero: the whole file
	byLine bool                // the end of a line ends an item
	start  int                 // depth at which each of its items begins
	depth  int                 // depth of the current item
}

// byLine reports whether the end of a line ends an item inside a bracket. opened is the bracket's token, and next are
// the tokens after it. Lines end items in a block and in an object, but not in { for ... }.
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

// endsLine reports whether a line ends with t. The token of a comment after # or // includes the end of its line.
func endsLine(t *hclsyntax.Token) bool {
	return t.Type == hclsyntax.TokenNewline ||
		t.Type == hclsyntax.TokenComment && bytes.HasSuffix(t.Bytes, []byte("\n"))
}

// isPlain reports whether the parser takes a token of type t without recursing.
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

// closes reports whether t is the counterpart of the bracket opened.
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
