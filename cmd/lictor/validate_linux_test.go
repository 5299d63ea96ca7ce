package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/kernel"
	"github.com/lictor-proxy/lictor/internal/testnet"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// validate -live says what keeps clients of a transparent service from being served.
func TestValidateLiveOfATransparentService(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	testnet.AddHost(t, "eth0", testnet.Link{Here: netip.MustParsePrefix("192.0.2.1/24"),
		There: netip.MustParsePrefix("192.0.2.2/24")})
	path := filepath.Join(t.TempDir(), "lictor.hcl")
	validate := func(listen, endpoint string) string {
		t.Helper()
		text := "service \"clear\" {\n  listen = \"" + listen + "\"\n  transparent = true\n  static {\n" +
			"    endpoints = [\"" + endpoint + "\"]\n  }\n}\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, said := lictor(t, exitOK, "validate", "-live", path)
		if !strings.HasPrefix(out, "ok: 1 service") {
			t.Errorf("got %s", out)
		}
		return said
	}
	wants := func(said string, texts ...string) {
		t.Helper()
		if strings.Count(said, "Warning: ") != len(texts) {
			t.Errorf("got %swant %d warnings", said, len(texts))
		}
		for _, text := range texts {
			if !strings.Contains(said, text) {
				t.Errorf("got %swant %q", said, text)
			}
		}
	}
	wants(validate("192.0.2.1:80", "192.0.2.2:80"), "ip rule add fwmark 0x1 lookup 100")
	wants(validate("[::]:80", "[2001:db8::2]:80"), "ip -6 rule add fwmark 0x1 lookup 100")
	addr := netip.MustParseAddr("192.0.2.1")
	testnet.AddMarkRule(t, addr, 1, 100)
	testnet.AddLocalRoute(t, addr, 100)
	wants(validate("192.0.2.1:80", "192.0.2.2:80"))
	wants(validate("192.0.2.1:80", "192.0.2.1:81"), "192.0.2.1:81 is on this host")
	wants(validate("127.0.0.1:80", "192.0.2.2:80"), "all listeners are at loopback addresses")
	wants(validate("127.0.0.1:80", "127.0.0.1:81"))
	wants(validate("192.0.2.1:80", "unix:///run/s"), "a Unix socket cannot tell")
}

// validate -live says which services would be on the kernel path, and what this host lacks for it.
func TestValidateLiveOfTheKernelPath(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "lictor.hcl")
	validate := func(code int, top string) (out, said string) {
		t.Helper()
		text := top + "service \"web\" {\n  listen = 9000\n  static {\n    endpoints = [\"127.0.0.1:1\"]\n  }\n}\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return lictor(t, code, "validate", "-live", path)
	}
	if out, said := validate(exitOK, ""); strings.Contains(out+said, "kernel path") {
		t.Errorf("without kernel_path: got %s%s", out, said)
	}
	const missing = "kernel_path_cgroup = \"/does-not-exist\"\n"
	out, said := validate(exitOK, missing+"kernel_path = \"auto\"\n")
	if !strings.Contains(out, "not on the kernel path: 1 service (web): ") ||
		!strings.Contains(said, "Warning: No kernel path on this host") {
		t.Errorf("without the control group: got %s%s", out, said)
	}
	if err := kernel.Probe(""); err != nil {
		testproc.Cannot(t, "the kernel path cannot be opened", err)
	}
	if _, said = validate(exitFailed, missing+"kernel_path = \"on\"\n"); !strings.Contains(said, "does-not-exist") {
		t.Errorf("without the control group that is needed: got %s", said)
	}
	out, said = validate(exitOK, "kernel_path = \"on\"\n")
	if !strings.HasPrefix(out, "kernel path: 1 service (web)\n") {
		t.Errorf("on this host: got %s%s", out, said)
	}
}
