package returnpath

import (
	"cmp"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// read asks the kernel by rtnetlink(7) and reads its settings.
func read(f Family) (*host, error) {
	h := &host{family: f, local: map[uint32]bool{}}
	err := h.dump(unix.RTM_GETRULE, func(m message) {
		if r, ok := m.rule(); ok {
			h.rules = append(h.rules, r)
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(h.rules, func(a, b rule) int { return cmp.Compare(a.priority, b.priority) })
	err = h.dump(unix.RTM_GETROUTE, func(m message) {
		if m.kind() == unix.RTN_LOCAL && m.destinationBits() == 0 {
			h.local[m.table(unix.RTA_TABLE)] = true
		}
	})
	if err == nil && f == IPv4 {
		h.readSettings()
	}
	return h, err
}

// dump calls f for each object of a kind that the kernel knows for the host's family.
func (h *host) dump(kind int, f func(message)) error {
	family := unix.AF_INET
	if h.family == IPv6 {
		family = unix.AF_INET6
	}
	b, err := syscall.NetlinkRIB(kind, family)
	if err != nil {
		return os.NewSyscallError("netlink", err)
	}
	all, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return os.NewSyscallError("netlink", err)
	}
	for i := range all {
		if t := all[i].Header.Type; t != unix.RTM_NEWRULE && t != unix.RTM_NEWROUTE {
			continue
		}
		// The header of a rule (struct fib_rule_hdr) is as long as that of a route (struct rtmsg), which package
		// syscall knows.
		all[i].Header.Type = unix.RTM_NEWROUTE
		attrs, err := syscall.ParseNetlinkRouteAttr(&all[i])
		if err != nil {
			return os.NewSyscallError("netlink", err)
		}
		m := message{head: all[i].Data[:unix.SizeofRtMsg], attrs: map[uint16][]byte{}}
		for _, a := range attrs {
			m.attrs[a.Attr.Type] = a.Value
		}
		f(m)
	}
	return nil
}

// A message describes a rule or a route. Its head is a struct fib_rule_hdr or a struct rtmsg.
type message struct {
	head  []byte
	attrs map[uint16][]byte
}

func (m message) destinationBits() byte { return m.head[1] }

// kind returns the type of a route, or the action of a rule.
func (m message) kind() byte { return m.head[7] }

// table returns the number of the table, from the attribute or the head.
func (m message) table(attribute uint16) uint32 {
	if n := m.number(attribute); n != 0 {
		return n
	}
	return uint32(m.head[4])
}

// number returns an attribute of four bytes, or 0 if m does not have it.
func (m message) number(attribute uint16) uint32 {
	if b := m.attrs[attribute]; len(b) == 4 {
		return binary.NativeEndian.Uint32(b)
	}
	return 0
}

// rule returns the rule that m describes. ok is false if the rule leads to no table, or is inverted.
func (m message) rule() (r rule, ok bool) {
	flags := binary.NativeEndian.Uint32(m.head[8:])
	r = rule{
		priority: m.number(unix.FRA_PRIORITY), table: m.table(unix.FRA_TABLE), mark: m.number(unix.FRA_FWMARK),
		from: strings.TrimRight(string(m.attrs[unix.FRA_IIFNAME]), "\x00"),
	}
	return r, m.kind() == unix.FR_ACT_TO_TBL && flags&unix.FIB_RULE_INVERT == 0
}

// readSettings reads the settings of the interfaces, see Documentation/networking/ip-sysctl.rst of Linux. The stricter
// one of "all" and the interface counts. What cannot be read counts as off.
func (h *host) readSettings() {
	all, err := net.Interfaces()
	if err != nil {
		return
	}
	interfaces := 0
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		interfaces++
		h.marked = h.marked || max(setting("all", "src_valid_mark"), setting(i.Name, "src_valid_mark")) == "1"
		if max(setting("all", "rp_filter"), setting(i.Name, "rp_filter")) == "1" {
			h.strict = append(h.strict, i.Name)
		}
	}
	slices.Sort(h.strict)
	if interfaces < 2 { // answers cannot take another way
		h.strict = nil
	}
}

// setting returns a setting of one digit, or an empty string.
func setting(name, key string) string {
	b, _ := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", name, key)) // an empty setting counts as off
	return strings.TrimSpace(string(b))
}
