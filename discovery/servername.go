package discovery

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/lictor-proxy/lictor/internal/hostport"
)

// A nameRule says where the ServerName of an instance stands. The zero value means that no instance has one.
type nameRule struct{ meta, tag string } // see Query.ServerNameMeta and Query.ServerNameTag

func (q *Query) names() nameRule { return nameRule{q.ServerNameMeta, q.ServerNameTag} }

// find returns the server name of s, or why s has none. Without a rule, both results are empty.
func (r nameRule) find(s *entryService) (name, problem string) {
	var where string
	found := false
	switch {
	case r.meta != "":
		var meta map[string]string
		_ = json.Unmarshal(s.Meta, &meta) // what is no text is missing
		if name, found = meta[r.meta]; !found {
			return "", fmt.Sprintf("its meta has no %q", r.meta)
		}
		where = fmt.Sprintf("%q in its meta", r.meta)
	case r.tag != "":
		for _, t := range s.Tags {
			if name, found = strings.CutPrefix(t, r.tag); found {
				break
			}
		}
		if !found {
			return "", fmt.Sprintf("it has no tag that begins with %q", r.tag)
		}
		where = fmt.Sprintf("its tag that begins with %q", r.tag)
	default:
		return "", ""
	}
	if !isServerName(name) {
		return "", fmt.Sprintf("%s has %q, which is neither a host name nor an IP address", where, cut(name, maxTag))
	}
	return name, ""
}

// isServerName reports whether a certificate can be verified by name. An address with a zone is in no certificate.
func isServerName(name string) bool {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Zone() == ""
	}
	return hostport.IsHostName(name)
}
