package returnpath

import (
	"net/netip"
	"os"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testnet"
)

// Check reads what a host has. Each step adds what the finding before asks for.
func TestCheck(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	testnet.AddInterfaces(t, "veth0", "veth1")
	testnet.BringUp(t, "veth0")
	testnet.BringUp(t, "veth1")
	set := func(name, value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name, []byte(value), 0); err != nil {
			t.Skipf("settings cannot be changed: %v", err) // a read-only /proc
		}
	}
	for family, like := range map[Family]string{IPv4: "192.0.2.1", IPv6: "2001:db8::1"} {
		check := func(want string) {
			t.Helper()
			got, err := Check(family)
			if err != nil {
				t.Fatal(err)
			}
			wantFinding(t, got, want)
		}
		addr := netip.MustParseAddr(like)
		check("No rule for answers: " + family.String())
		testnet.AddMarkRule(t, addr, 5, 77)
		check(`No local route: "fwmark 0x5 lookup 77"`)
		testnet.AddLocalRoute(t, addr, 77)
		check("")
		testnet.AddInterfaceRule(t, addr, "veth0", 78)
		check("") // another rule, about other packets
	}
	set("veth1/src_valid_mark", "1")
	got, err := Check(IPv4)
	if err != nil {
		t.Fatal(err)
	}
	wantFinding(t, got, `Answers are dropped because of src_valid_mark: "fwmark 0x5 lookup 77"`)
	testnet.AddLocalRoute(t, netip.MustParseAddr("192.0.2.1"), 78) // the rule about veth0 is enough now
	set("all/rp_filter", "1")
	if got, err = Check(IPv4); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, got, "Strict reverse path filter: for veth0, veth1")
}
