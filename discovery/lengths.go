package discovery

import (
	"fmt"
	"hash/fnv"
	"strings"
)

// These constants limit the strings that are kept from an answer, in bytes. Each client that may register a service
// chooses such strings, and Consul allows an ID of several megabytes.
const (
	maxID      = 512  // an instance ID: the name of its node, a slash and its service ID
	maxAddress = 260  // longer than any host name, and than any IPv6 address with a zone
	maxTags    = 64   // number of tags
	maxTag     = 128  // each tag
	maxCheck   = 1024 // each string of a check
	maxWord    = 64   // a string that should be one word
)

// cut returns s, shortened to at most most bytes. A shortened string ends in dots, and cut breaks no UTF-8 character.
func cut(s string, most int) string {
	const dots = "..."
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len(dots)], "") + dots
}

// shortID returns a short text in place of an ID that is too long. Different IDs have different texts.
func shortID(name, id string) string {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d %s/%s", len(name), name, id)
	return fmt.Sprintf("%s/%s#%x", cut(name, maxWord), cut(id, maxWord), h.Sum64())
}

// shortTags returns the tags to keep of an instance. If there are more than maxTags tags, the last text says how many
// were dropped.
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

// shortNames joins at most eight names for a log line.
func shortNames(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
