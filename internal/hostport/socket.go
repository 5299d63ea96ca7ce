package hostport

import (
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxSocketPath is the longest path of a Unix socket, in bytes: the kernel's structure holds 108 with a zero at the end
// (unix(7)).
const maxSocketPath = 107

// BadSocketPath returns what is wrong with the path of a Unix socket, or "". The result does not have the path itself.
// The path must be absolute and without "..", so that it names the same file for everybody. Paths are shown in logs, so
// they have no control characters.
func BadSocketPath(p string) string {
	switch {
	case !strings.HasPrefix(p, "/"):
		return "the path of a socket must be absolute"
	case path.Clean(p) != p || p == "/":
		return "the path has \".\", \"..\" or a slash too many"
	case len(p) > maxSocketPath:
		return fmt.Sprintf("the path has %d bytes, and the system allows %d", len(p), maxSocketPath)
	case !utf8.ValidString(p) || strings.ContainsFunc(p, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "the path has characters that cannot be printed"
	}
	return ""
}
