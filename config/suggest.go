package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// Nearest returns the name that given is probably a misspelling of, or "" if no name is near.
func Nearest(given string, names []string) string {
	given = strings.ToLower(given)
	best, bestDistance := "", 3 // one more than the greatest distance that counts, as in HCL's own suggestions
	for _, name := range names {
		d := levenshtein.Distance(given, name, nil)
		if len(given) >= 3 && (strings.HasPrefix(given, name) || strings.HasPrefix(name, given)) {
			d = min(d, 2) // "warning" for "warn"
		}
		if d < bestDistance && d < len(name) {
			best, bestDistance = name, d
		}
	}
	return best
}

// didYouMean returns a sentence that begins with a space, or "" if no name is near. It knows the words of other
// proxies.
func didYouMean(given string, names []string) string {
	if f := counterpart(given); f != nil && slices.Contains(names, f.here) {
		return strings.TrimRight(fmt.Sprintf(" Did you mean %q? %s", f.here, f.note), " ")
	}
	if name := Nearest(given, names); name != "" {
		return fmt.Sprintf(" Did you mean %q?", name)
	}
	return ""
}

// either returns the quoted names as a list: "a", "b" or "c".
func either(names []string) string {
	var b strings.Builder
	for i, name := range names {
		switch {
		case i > 0 && i == len(names)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", name)
	}
	return b.String()
}
