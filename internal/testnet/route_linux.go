package testnet

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// addDefaultRoute sends everything of the gateway's address family that has no other route to the gateway.
func addDefaultRoute(t testing.TB, gateway netip.Addr) {
	t.Helper()
	e := netlink.NewAttributeEncoder()
	e.Bytes(unix.RTA_GATEWAY, gateway.AsSlice())
	request := routeRequest(familyOf(gateway), unix.RT_TABLE_MAIN, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST)
	if err := ask(unix.RTM_NEWROUTE, netlink.Create, request, e); err != nil {
		t.Error(err)
	}
}

// AddLocalRoute is `ip route add local default dev lo table TABLE`, for the address family of like.
func AddLocalRoute(t testing.TB, like netip.Addr, table byte) {
	t.Helper()
	e := netlink.NewAttributeEncoder()
	e.Uint32(unix.RTA_OIF, 1) // lo
	request := routeRequest(familyOf(like), table, unix.RT_SCOPE_HOST, unix.RTN_LOCAL)
	if err := ask(unix.RTM_NEWROUTE, netlink.Create, request, e); err != nil {
		t.Fatal(err)
	}
}

// routeRequest returns a struct rtmsg for a default route, see rtnetlink(7).
func routeRequest(family, table, scope, kind byte) []byte {
	return []byte{family, 0, 0, 0, table, unix.RTPROT_STATIC, scope, kind, 0, 0, 0, 0}
}

// AddMarkRule is `ip rule add fwmark MARK lookup TABLE`, for the address family of like.
func AddMarkRule(t testing.TB, like netip.Addr, mark uint32, table byte) {
	t.Helper()
	e := netlink.NewAttributeEncoder()
	e.Uint32(unix.FRA_FWMARK, mark)
	if err := ask(unix.RTM_NEWRULE, netlink.Create, ruleRequest(familyOf(like), table), e); err != nil {
		t.Fatal(err)
	}
}

// AddInterfaceRule is `ip rule add iif NAME lookup TABLE`, for the address family of like.
func AddInterfaceRule(t testing.TB, like netip.Addr, name string, table byte) {
	t.Helper()
	e := netlink.NewAttributeEncoder()
	e.String(unix.FRA_IIFNAME, name)
	if err := ask(unix.RTM_NEWRULE, netlink.Create, ruleRequest(familyOf(like), table), e); err != nil {
		t.Fatal(err)
	}
}

// ruleRequest returns a struct fib_rule_hdr for a rule that leads to table.
func ruleRequest(family, table byte) []byte {
	return binary.NativeEndian.AppendUint32([]byte{family, 0, 0, 0, table, 0, 0, unix.FR_ACT_TO_TBL}, 0)
}
