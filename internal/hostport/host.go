// Package hostport parses host names and addresses in the forms that users write. The package makes no lookups.
package hostport

import "strings"

// Limits of DNS, in bytes.
const (
	maxName  = 253
	maxLabel = 63
)

// IsHostName reports whether name is a valid host name. IsHostName allows a dot at the end, and underscores, which
// Consul's names and many others contain. IsHostName rejects a name with only digits in its last label, which is a
// mistyped IP address, because no such top-level domain exists.
func IsHostName(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if len(name) > maxName {
		return false
	}
	var last string
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return false
		}
		last = label
	}
	return strings.Trim(last, "0123456789") != ""
}

func isLabel(s string) bool {
	return s != "" && len(s) <= maxLabel && s[0] != '-' && s[len(s)-1] != '-' &&
		!strings.ContainsFunc(s, func(r rune) bool { return !IsHostNameRune(r) })
}

// IsHostNameRune reports whether r may occur in a label of a host name.
func IsHostNameRune(r rune) bool {
	return r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}
