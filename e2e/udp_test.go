//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

const udp = `protocol = "udp"`

func TestUDPDatagramsOfAllSizesArriveWhole(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "dns", "a", startUDP(t, "a").addr)
	l := runLictor(t, consulBlock(c)+service("dns", udp))
	client := dialUDP(t, l.addr(t, "dns"))
	for _, size := range []int{1, 512, 1472, 9000, 65507, 0} {
		if size == 65507 && runtime.GOOS == "darwin" {
			continue // net.inet.udp.maxdgram is 9216 there
		}
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			datagram := bytes.Repeat([]byte{byte(size), 1, 2, 3, 4, 5, 6}, size/7+1)[:size]
			eventually(t, "the datagram comes back", func() error {
				got, err := client.exchange(datagram)
				if err == nil && !bytes.Equal(got, datagram) {
					err = fmt.Errorf("got %d bytes, or other ones", len(got))
				}
				return err
			})
		})
	}
}

func TestUDPClientsKeepApart(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "dns", "a", startUDP(t, "a").addr)
	c.register(t, "dns", "b", startUDP(t, "b").addr)
	l := runLictor(t, consulBlock(c)+service("dns", udp))
	one, two := dialUDP(t, l.addr(t, "dns")), dialUDP(t, l.addr(t, "dns"))
	first, second := one.awaitAnswer(t, "a", "b"), two.awaitAnswer(t, "a", "b")
	if first == second {
		t.Errorf("two clients of two instances both reached %s", first)
	}
	// All datagrams are sent before one is read, so that an answer to the wrong client is noticed.
	for i := range 20 {
		_, err := fmt.Fprintf(one, "one %d", i)
		must(t, err)
		_, err = fmt.Fprintf(two, "two %d", i)
		must(t, err)
	}
	for client, name := range map[*udpClient]string{one: "one", two: "two"} {
		for i := range 20 {
			if got, want := client.receive(t), fmt.Sprintf("%s %d", name, i); got != want {
				t.Fatalf("client %s got %q, want %q", name, got, want)
			}
		}
	}
	for range 5 {
		one.awaitAnswer(t, first)
		two.awaitAnswer(t, second)
	}
}

func TestUDPSessionMovesWhenItsInstanceLeaves(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "dns", "a", startUDP(t, "a").addr)
	c.register(t, "dns", "b", startUDP(t, "b").addr)
	l := runLictor(t, consulBlock(c)+service("dns", udp))
	client := dialUDP(t, l.addr(t, "dns"))
	first := client.awaitAnswer(t, "a", "b")
	other := map[string]string{"a": "b", "b": "a"}[first]

	c.deregister(t, first)
	client.awaitAnswer(t, other)
}

func TestUDPSessionMovesWhenItsInstanceRefuses(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	instances := map[string]*instance{"a": startUDP(t, "a"), "b": startUDP(t, "b")}
	for name, i := range instances {
		c.register(t, "dns", name, i.addr)
	}
	l := runLictor(t, consulBlock(c)+service("dns", udp))
	client := dialUDP(t, l.addr(t, "dns"))
	first := client.awaitAnswer(t, "a", "b")
	other := map[string]string{"a": "b", "b": "a"}[first]

	instances[first].close() // without Consul's knowledge
	client.awaitAnswer(t, other)
}

func TestUDPAnswersComeFromTheAddressThatTheClientUsed(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8 without being asked")
	}
	c := startConsul(t, testconsul.Options{})
	c.register(t, "dns", "a", startUDP(t, "a").addr)
	l := runLictor(t, consulBlock(c)+"service \"dns\" {\n  listen = \"0.0.0.0:0\"\n  protocol = \"udp\"\n}\n")
	port := l.addr(t, "dns").Port()
	for _, ip := range []string{"127.0.0.1", "127.0.0.2", "127.3.2.1"} {
		t.Run(ip, func(t *testing.T) {
			// The client's socket is connected, so it receives no answer from another address.
			dialUDP(t, netip.AddrPortFrom(netip.MustParseAddr(ip), port)).awaitAnswer(t, "a")
		})
	}
}

func TestUDPServiceWithoutInstancesServesTheFirst(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	l := runLictor(t, consulBlock(c)+service("dns", udp))
	client := dialUDP(t, l.addr(t, "dns"))
	if got, err := client.exchange(who); err == nil {
		t.Fatal(errors.New("an answer from nobody: " + string(got)))
	}
	c.register(t, "dns", "a", startUDP(t, "a").addr)
	client.awaitAnswer(t, "a")
}
