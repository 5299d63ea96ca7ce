package config

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"weak"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// manyServices returns a configuration of n services that listen on the same port, each on an address of its own.
func manyServices(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "service \"s%d\" {\n  listen = \"127.%d.%d.1:9000\"\n  consul {\n    tags = [\"a\"]\n  "+
			"}\n}\n", i, i>>8, i&255)
	}
	return b.String()
}

// A new listener is compared with a fixed number of others. Otherwise the time to load would grow with the square of
// the number of listeners.
func TestCollisionsAreFoundWithoutLookingAtAll(t *testing.T) {
	port := &portClaims{byAddr: map[netip.Addr]*claim{}}
	for i := range 10_000 {
		addr := netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})
		if n := len(port.rivals(addr)); n > 5 {
			t.Fatalf("the listener after %d others is compared with %d", i, n)
		}
		port.add(&claim{addr: netip.AddrPortFrom(addr, 9000)})
	}
}

// The listener in a collision message is the same as if all listeners had been compared.
func TestCollisionsAreThoseOfAll(t *testing.T) {
	addrs := []string{"0.0.0.0", "::", "::1", "2001:db8::7", "fe80::1%a", "fe80::1%b", "127.0.0.1",
		"127.0.0.2", "10.0.0.5"}
	for range 2000 {
		port := &portClaims{byAddr: map[netip.Addr]*claim{}}
		var all []*claim
		for range 6 {
			c := &claim{addr: netip.AddrPortFrom(netip.MustParseAddr(addrs[rand.IntN(len(addrs))]), 9000)}
			var want *claim
			for _, first := range all {
				if c.collides(*first) {
					want = first
					break
				}
			}
			if got := port.collision(c); got != want {
				t.Fatalf("%v after %v: got a collision with %v, want %v", c, all, got, want)
			}
			if want == nil {
				port.add(c)
				all = append(all, c)
			}
		}
	}
}

// The block of a problem is found by binary search, and is the block that the parser's own function finds.
func TestContextOfManyBlocks(t *testing.T) {
	src := []byte("log_level = \"x\"\n" + manyServices(50) + "consul {\n}\n service \"a\" \"b\" {}\n")
	file, diags := hclsyntax.ParseConfig(src, "test.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var s sources
	s.add("test.hcl", src, file)
	nav, ok := file.Nav.(interface{ ContextString(int) string })
	if !ok {
		t.Fatal("the parser no longer has the function")
	}
	for offset := range src {
		if got, want := s.files["test.hcl"].context(offset), nav.ContextString(offset); got != want {
			t.Fatalf("at %d: got %q, want %q", offset, got, want)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1000, 20000} {
		src := manyServices(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				if cfg, diags := loadText(src, nil); cfg == nil {
					b.Fatalf("%.1000s", textOf(diags))
				}
			}
		})
	}
}

// What the daemon keeps of a configuration does not keep the parsed files in memory, which are several times as large.
func TestParsedFilesAreNotKept(t *testing.T) {
	l := newLoader(Options{})
	l.parse("a.hcl", []byte(`service "web" { listen = "127.0.0.1:1" }`))
	block := weak.Make(l.bodies[0].(*hclsyntax.Body).Blocks[0])
	cfg, diags := l.finish()
	if cfg == nil {
		t.Fatal(diags.Err())
	}
	runtime.GC()
	if block.Value() != nil {
		t.Error("a parsed block is still in memory")
	}
	runtime.KeepAlive(cfg)
	runtime.KeepAlive(diags)
}
