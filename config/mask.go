package config

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/agext/levenshtein"
)

// Diagnostics show source lines, and a source line may hold a token: a good one beside a mistake, or the mistake
// itself. Masking works on the raw text, not on what was parsed, because a file that does not parse gets shown too.
// It would rather mask too much.

var (
	// argument finds each name that is followed by something like a value.
	argument = regexp.MustCompile(`([A-Za-z_][\w.-]*)(?:"?\s*[=:]|[ \t]+["'])`)

	userinfo     = regexp.MustCompile(`://([^/"\s]*)@`)
	heredocStart = regexp.MustCompile(`^\s*<<-?\s*(\w+)\s*$`)
)

// mask returns a copy of src in which every byte that may be of a secret is '*', so that offsets, lines and columns
// stay, and what it masked.
func mask(src []byte) (masked []byte, secrets []string) {
	masked = bytes.Clone(src)
	hidden := 0 // values may lie in each other
	hide := func(from, to int) {
		if from = max(from, hidden); from >= to {
			return
		}
		hidden = to
		secrets = append(secrets, words(src[from:to])...)
		for i := from; i < to; i++ {
			if !strings.ContainsRune("\" \t\r\n", rune(src[i])) {
				masked[i] = '*'
			}
		}
	}
	for _, m := range argument.FindAllSubmatchIndex(src, -1) {
		if secretName(string(src[m[2]:m[3]]), src[m[1]:]) {
			hide(m[1], m[1]+valueLength(src[m[1]:]))
		}
	}
	hidden = 0
	for _, m := range userinfo.FindAllSubmatchIndex(src, -1) {
		hide(m[2], m[3])
	}
	return masked, secrets
}

// secretName tells whether an argument of that name holds a secret, or was meant to; after is the text behind its
// equals sign.
func secretName(name string, after []byte) bool {
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		if bytes.HasPrefix(after, []byte("=")) {
			return false // a filter: Service.Meta.token == `x`
		}
		name = name[dot+1:]
	}
	name = strings.ToLower(name)
	if name == "token_file" {
		return false
	}
	for _, part := range []string{"token", "secret", "passw", "credential", "auth"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return levenshtein.Distance(name, "token", nil) <= 2
}

// valueLength is how much of src, which starts behind an equals sign, may belong to the value: the line, and further
// lines when it does not look finished.
func valueLength(src []byte) int {
	n := lineLength(src)
	first := string(src[:n])
	if m := heredocStart.FindStringSubmatch(first); m != nil {
		return untilLine(src, n, func(line string) bool { return line == m[1] })
	}
	switch trimmed := strings.TrimSpace(first); {
	case trimmed == "":
		return n + lineLength(src[n:])
	case strings.Count(trimmed, `"`)%2 == 1:
		if next := n + lineLength(src[n:]); bytes.Count(src[n:next], []byte(`"`))%2 == 1 {
			return next
		}
	case strings.ContainsAny(trimmed[len(trimmed)-1:], "([{?:,+"):
		return untilLine(src, n, func(line string) bool { return line != "" && strings.ContainsAny(line[:1], ")]}") })
	}
	return n
}

// maxSecretLines bounds what is masked of a value whose end is missing.
const maxSecretLines = 200

// untilLine extends n by lines up to and with the first that is last.
func untilLine(src []byte, n int, last func(trimmed string) bool) int {
	for range maxSecretLines {
		if n == len(src) {
			break
		}
		l := lineLength(src[n:])
		line := strings.TrimSpace(string(src[n : n+l]))
		n += l
		if last(line) {
			break
		}
	}
	return n
}

// lineLength is the length of the first line of src with its end.
func lineLength(src []byte) int {
	if i := bytes.IndexByte(src, '\n'); i >= 0 {
		return i + 1
	}
	return len(src)
}

// words are the parts of a masked stretch that are long enough to be secrets, for scrubbing messages.
func words(src []byte) []string {
	var long []string
	if i := bytes.IndexByte(src, '#'); i >= 0 {
		src = src[:i] // the words of a comment occur in messages too
	}
	for _, w := range strings.FieldsFunc(string(src),
		func(r rune) bool { return strings.ContainsRune("\"' \t\r\n", r) }) {
		if len(w) >= 6 {
			long = append(long, w)
		}
	}
	return long
}
