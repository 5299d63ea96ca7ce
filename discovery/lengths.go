package discovery

import (
	"fmt"
	"hash/fnv"
	"strings"
)

// Bounds of what is kept and shown of the strings in an answer, in bytes. Whoever may register a service in Consul
// chooses them, and Consul allows an ID of megabytes.
const (
	maxID      = 512  // of an instance: its node's name, a slash and its service ID
	maxAddress = 260  // more than any host name, or IPv6 address with a zone, has
	maxTags    = 64   // how many are kept
	maxTag     = 128  // of each tag
	maxCheck   = 1024 // of each part of what is said of a check
	maxWord    = 64   // of what should be a word
)

// cut returns s if it has most bytes at most; else its beginning, of whole characters, and dots in place of the rest.
func cut(s string, most int) string {
	const dots = "..."
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len(dots)], "") + dots
}

// shortID stands for an ID that is too long. No two IDs have the same.
func shortID(name, id string) string {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d %s/%s", len(name), name, id)
	return fmt.Sprintf("%s/%s#%x", cut(name, maxWord), cut(id, maxWord), h.Sum64())
}

// shortTags are the tags to be kept of an instance: maxTags and one that says how many more there are, at most.
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

// shortNames joins names for a log line.
func shortNames(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
