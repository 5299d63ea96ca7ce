package discovery

import (
	"fmt"
	"hash/fnv"
	"strings"
)

// Bounds of the strings that are kept of an answer, in bytes. Everybody who may register a service chooses such
// strings, and Consul allows an ID of megabytes.
const (
	maxID      = 512  // of an instance: the name of its node, a slash and its service ID
	maxAddress = 260  // longer than any host name, and than any IPv6 address with a zone
	maxTags    = 64   // how many tags are kept
	maxTag     = 128  // of each tag
	maxCheck   = 1024 // of each string of a check
	maxWord    = 64   // of a string that should be a word
)

// cut returns s, shortened to most bytes if it has more. Then it ends in dots, and no character is broken.
func cut(s string, most int) string {
	const dots = "..."
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len(dots)], "") + dots
}

// shortID returns a text in place of an ID that is too long. Different IDs have different texts.
func shortID(name, id string) string {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d %s/%s", len(name), name, id)
	return fmt.Sprintf("%s/%s#%x", cut(name, maxWord), cut(id, maxWord), h.Sum64())
}

// shortTags returns the tags that are kept of an instance. If there are more than maxTags, the last one says how
// many more.
func shortTags(tags []string) []string {
	long := false
	for _, t := range tags {
		long = long || len(t) > maxTag
	}
	if len(tags) <= maxTags+1 && !long {
		return tags
	}
	kept, more := tags, len(tags)-maxTags
	if more > 1 {
		kept = tags[:maxTags]
	}
	out := make([]string, 0, len(kept)+1)
	for _, t := range kept {
		out = append(out, cut(t, maxTag))
	}
	if more > 1 {
		out = append(out, fmt.Sprintf("... and %d more tags", more))
	}
	return out
}

// shortNames joins names for a log line, eight at most.
func shortNames(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
