package proxyproto

import (
	"net/netip"
	"testing"
)

func TestAppendProbe(t *testing.T) {
	local, remote := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")
	for v, want := range map[Version]string{
		None: "x",
		V1:   "xPROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
		V2:   "x\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
	} {
		if got := string(v.AppendProbe([]byte("x"), local, remote)); got != want {
			t.Errorf("version %d: got %q, want %q", v, got, want)
		}
	}
}
