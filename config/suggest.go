package config

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
)

// Nearest is the one of names that given looks like a misspelling of, or empty.
func Nearest(given string, names []string) string {
	given = strings.ToLower(given)
	best, bestDistance := "", 3 // the same distance as HCL's own suggestions
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

// didYouMean is a sentence that starts with a space, or empty.
func didYouMean(given string, names []string) string {
	if name := Nearest(given, names); name != "" {
		return fmt.Sprintf(" Did you mean %q?", name)
	}
	return ""
}

// either lists names as `"a", "b" or "c"`.
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
