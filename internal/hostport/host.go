// Package hostport reads host names and addresses as people write them. It looks nothing up.
package hostport

import "strings"

// The bounds of DNS, in bytes.
const (
	maxName  = 253
	maxLabel = 63
)

// IsHostName reports whether a resolver could know the name. Underscores are allowed, which Consul's names and many
// others have, and so is a dot at the end. A name whose last label has only digits is a mistyped IP address: there is
// no such top-level domain.
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

// IsHostNameRune reports whether r can be in a label of a host name.
func IsHostNameRune(r rune) bool {
	return r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}
