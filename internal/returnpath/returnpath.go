// Package returnpath checks whether packets that answer a socket with another host's address come back to that socket.
// Such a socket is transparent (IP_TRANSPARENT, see ip(7)). Its answers go to the other host's address, and this host
// must deliver them to itself. A routing rule has to choose a table for them that has a local route for every address:
//
//	ip rule add fwmark 0x1 lookup 100
//	ip route add local default dev lo table 100
//
// The package reads rules, routes and settings, and changes nothing. It does not read the packet filter that sets the
// mark, because that needs privileges.
package returnpath

import (
	"fmt"
	"slices"
	"strings"
)

// Family is an address family.
type Family int

// The address families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns "IPv4" or "IPv6".
func (f Family) String() string { return fmt.Sprintf("IPv%d", int(f)) }

// A Finding is something that this host lacks, or that may keep answers away. Detail has one or more sentences, with
// the commands that help.
type Finding struct{ Summary, Detail string }

// Check returns what keeps answers to transparent sockets of a family away from this host. Check returns no Findings if
// it knows of nothing. An error means that the host cannot be read; errors.ErrUnsupported means that only Linux has
// transparent sockets.
func Check(f Family) ([]Finding, error) {
	h, err := read(f)
	if err != nil {
		return nil, err
	}
	return h.findings(), nil
}

// mainTable is the number of the table main, whose rule comes last but one on most hosts.
const mainTable = 254

// A host is what is known of a host's routing, for one family.
type host struct {
	family Family
	rules  []rule          // in the order of their priorities
	local  map[uint32]bool // tables with a local route for every address
	strict []string        // interfaces whose reverse path filter is strict, if there are several interfaces
	marked bool            // whether the reverse path is looked up with the mark of the packet (src_valid_mark)
}

// A rule leads some packets to a table.
type rule struct {
	priority, table uint32
	mark            uint32 // mark of the packets; 0 for packets with any mark
	from            string // interface at which the packets have arrived; empty for any
}

// String returns the rule in the words of ip-rule(8).
func (r rule) String() string {
	var words []string
	if r.mark != 0 {
		words = append(words, fmt.Sprintf("fwmark %#x", r.mark))
	}
	if r.from != "" {
		words = append(words, "iif "+r.from)
	}
	return strings.Join(append(words, fmt.Sprintf("lookup %d", r.table)), " ")
}

// chooses reports whether r may choose the packets that answer transparent sockets: r is not about all packets or those
// that this host sends, and leads to none of the tables that every host has.
func (r rule) chooses() bool {
	return (r.mark != 0 || r.from != "") && r.from != "lo" && (r.table < 253 || r.table > 255)
}

func (h *host) findings() (all []Finding) {
	if f := h.lack(); f != nil {
		all = append(all, *f)
	}
	if len(h.strict) > 0 {
		all = append(all, Finding{"Strict reverse path filter", fmt.Sprintf(
			"An answer is dropped if it arrives at another interface than the one through which its instance is "+
				"reached, because net.ipv4.conf.NAME.rp_filter is 1 for %s. Ignore this if answers come back the "+
				"same way. Otherwise run: sysctl -w net.ipv4.conf.all.rp_filter=2", strings.Join(h.strict, ", "))})
	}
	return all
}

// lack returns what the rules and routes lack, or nil.
func (h *host) lack() *Finding {
	main := slices.IndexFunc(h.rules, func(r rule) bool { return r.table == mainTable && r.mark == 0 && r.from == "" })
	var chosen, good []rule
	late := false
	for i, r := range h.rules {
		switch {
		case !r.chooses():
		case main >= 0 && i > main:
			late = late || h.local[r.table]
		case h.local[r.table]:
			good = append(good, r)
		default:
			chosen = append(chosen, r)
		}
	}
	switch {
	case len(good) > 0 && h.marked && !slices.ContainsFunc(good, func(r rule) bool { return r.from != "" }):
		return &Finding{"Answers are dropped because of src_valid_mark", fmt.Sprintf(
			"net.ipv4.conf.NAME.src_valid_mark is 1, so the rule %q applies to the check of an answer's sender too. "+
				"Set it to 0, or replace the rule by one for each interface at which answers arrive: "+
				"ip rule add fwmark %#x iif NAME lookup %d", good[0], good[0].mark, good[0].table)}
	case len(good) > 0:
		return nil
	case late:
		return &Finding{"Rule has no effect", "The rule that leads answers to a local route comes after the rule of " +
			"the table main. Give it a smaller number: " + h.ip("rule add priority 100 fwmark 0x1 lookup 100")}
	case len(chosen) > 0:
		return &Finding{"No local route", fmt.Sprintf(
			"The rule %q leads to a table that does not deliver packets to this host. Run: %s", chosen[0],
			h.ip(fmt.Sprintf("route add local default dev lo table %d", chosen[0].table)))}
	}
	return &Finding{"No rule for answers", fmt.Sprintf(
		"No rule leads packets with a mark to a table that delivers them to this host, so answers to clients' %s "+
			"addresses do not reach Lictor. Run: %s; %s; nft add table inet lictor; "+
			"nft add chain inet lictor prerouting '{ type filter hook prerouting priority mangle; }'; "+
			"nft add rule inet lictor prerouting socket transparent 1 meta mark set 0x1", h.family,
		h.ip("rule add fwmark 0x1 lookup 100"), h.ip("route add local default dev lo table 100"))}
}

// ip returns an ip(8) command for the host's family.
func (h *host) ip(arguments string) string {
	if h.family == IPv6 {
		return "ip -6 " + arguments
	}
	return "ip " + arguments
}
