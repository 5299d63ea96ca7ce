//go:build unix

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testdns"
)

// readExample returns a configuration in examples/ for a test, see adapt.
func readExample(t testing.TB, c *consul, name string, changes ...func(file *hclwrite.Body)) string {
	t.Helper()
	return adapt(t, c, readFile(t, filepath.Join("..", "examples", name)), changes...)
}

// adapt changes a configuration: the agent is c, and each service listens at a free port of 127.0.0.1. The given
// changes are made first. The services keep the listeners that these set.
func adapt(t testing.TB, c *consul, text string, changes ...func(file *hclwrite.Body)) string {
	t.Helper()
	file, diags := hclwrite.ParseConfig([]byte(text), "", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	body := file.Body()
	before := map[*hclwrite.Block]string{}
	for _, block := range services(body) {
		before[block] = textOf(block.Body(), "listen")
	}
	for _, change := range changes {
		change(body)
	}
	agent := hclwrite.NewBlock("consul", nil)
	if former := body.FirstMatchingBlock("consul", nil); former != nil { // it may be on one line, with one argument
		for name, attribute := range former.Body().Attributes() {
			agent.Body().SetAttributeRaw(name, attribute.Expr().BuildTokens(nil))
		}
		body.RemoveBlock(former)
	}
	setText(agent.Body(), "address", c.HTTP)
	body.AppendBlock(agent)
	for block, listen := range before {
		if textOf(block.Body(), "listen") == listen {
			setText(block.Body(), "listen", "127.0.0.1:0")
		}
	}
	return string(file.Bytes())
}

// services returns the service blocks of a configuration.
func services(file *hclwrite.Body) (all []*hclwrite.Block) {
	for _, block := range file.Blocks() {
		if block.Type() == "service" {
			all = append(all, block)
		}
	}
	return all
}

// textOf returns the value of an argument without quotes, or "" if the block does not have the argument.
func textOf(body *hclwrite.Body, name string) string {
	attribute := body.GetAttribute(name)
	if attribute == nil {
		return ""
	}
	return strings.Trim(string(attribute.Expr().BuildTokens(nil).Bytes()), ` "`)
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

func setText(body *hclwrite.Body, name, value string) {
	body.SetAttributeValue(name, cty.StringVal(value))
}

// Each entry of examples/ is in its README.
func TestExamplesAreListed(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	index := readFile(t, "../examples/README.md")
	entries, err := os.ReadDir("../examples")
	must(t, err)
	for _, e := range entries {
		link := e.Name()
		if e.IsDir() {
			link += "/README.md"
		}
		if e.Name() != "README.md" && !strings.Contains(index, "["+e.Name()+"]("+link+")") {
			t.Errorf("examples/README.md has no link to %s", link)
		}
	}
}

func TestExampleMinimal(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := runLictor(t, readExample(t, c, "minimal.hcl"))
	awaitRotation(t, l.addr(t, "web"), "a")
}

func TestExampleMultiDatacenter(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	one, two := startDatacenters(t)
	one.register(t, "orders", "near", startEcho(t, "near").addr, checked)
	two.register(t, "orders", "far", startEcho(t, "far").addr)
	l := runLictor(t, readExample(t, one, "multi-datacenter.hcl", func(file *hclwrite.Body) {
		setText(services(file)[0].Body(), "failback_hold", "1s")
	}))
	orders := l.addr(t, "orders")
	awaitRotation(t, orders, "near")
	one.setHealth(t, "near", api.HealthCritical)
	awaitRotation(t, orders, "far")
	one.setHealth(t, "near", api.HealthPassing)
	awaitRotation(t, orders, "near")
}

// Queries of a real resolver reach all name servers, over UDP and over TCP.
func TestExampleDNS(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	const name = "lictor.example"
	var servers []*testdns.Server
	for _, id := range []string{"a", "b"} {
		s := testdns.Listen(t, func(string) []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.7")} })
		c.register(t, "dns", id, s.Addr())
		servers = append(servers, s)
	}
	l := runLictor(t, readExample(t, c, "dns.hcl"))
	for _, network := range []string{"udp", "tcp"} {
		resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, l.addr(t, "dns-"+network).String())
		}}
		before := []int{servers[0].Asked(name), servers[1].Asked(name)}
		eventually(t, "both servers are asked over "+network, func() error {
			addrs, err := resolver.LookupNetIP(t.Context(), "ip4", name+".")
			if err != nil {
				return err
			}
			if len(addrs) != 1 || addrs[0].Unmap().String() != "192.0.2.7" {
				t.Fatalf("got the addresses %v over %s", addrs, network)
			}
			asked := []int{servers[0].Asked(name), servers[1].Asked(name)}
			if asked[0] == before[0] || asked[1] == before[1] {
				return fmt.Errorf("asked %v times before, now %v", before, asked)
			}
			return nil
		})
	}
}

// The check of dns.hcl finds a name server that does not answer, so that no query of a client has to.
func TestExampleDNSChecksServers(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	const name = "lictor.example"
	good := testdns.Listen(t, func(string) []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.7")} })
	silent := testdns.Listen(t, func(string) []netip.Addr { return nil })
	c.register(t, "dns", "good", good.Addr())
	c.register(t, "dns", "silent", silent.Addr())
	l := runLictor(t, readExample(t, c, "dns.hcl"))
	l.awaitAnswer(t, "explain dns-udp", 0, "1 of 2 known endpoints", "silent is ejected")
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", l.addr(t, "dns-udp").String())
	}}
	for range 10 {
		_, err := resolver.LookupNetIP(t.Context(), "ip4", name+".")
		must(t, err)
	}
	if n := silent.Asked(name); n != 0 {
		t.Errorf("the server that does not answer has %d queries of clients", n)
	}
}

// A collector is a syslog server. It keeps what it receives.
type collector struct {
	addr     netip.AddrPort
	mu       sync.Mutex
	messages []string
}

// startCollector starts a collector over UDP and TCP at the same port. Over TCP, a line is a message.
func startCollector(t testing.TB) *collector {
	t.Helper()
	c := &collector{addr: freePort(t)}
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(c.addr))
	must(t, err)
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(c.addr))
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 1<<12)
		for {
			n, err := conn.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			c.keep(string(buf[:n]))
		}
	})
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					c.keep(lines.Text())
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		_ = listener.Close()
		running.Wait()
	})
	return c
}

func (c *collector) keep(message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages = append(c.messages, message)
}

func (c *collector) has(message string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.messages, message)
}

// The datagrams of one sender are spread over the collectors, and so are the connections of several senders.
func TestExampleSyslog(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	one, two := startCollector(t), startCollector(t)
	c.register(t, "syslog", "one", one.addr)
	c.register(t, "syslog", "two", two.addr)
	l := runLictor(t, readExample(t, c, "syslog.hcl"))
	sender := dialUDP(t, l.addr(t, "syslog-udp"))
	const message = "<13>Feb  5 17:32:18 host app: over "
	eventually(t, "both collectors receive datagrams of one sender", func() error {
		if _, err := fmt.Fprint(sender, message, "UDP"); err != nil {
			return err
		}
		return received(message+"UDP", one, two)
	})
	for _, text := range []string{message + "TCP 1", message + "TCP 2"} { // over a connection each, which stays open
		conn, err := net.Dial("tcp", l.addr(t, "syslog-tcp").String())
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		_, err = fmt.Fprintln(conn, text)
		must(t, err)
		eventually(t, "a collector receives a line", func() error {
			if !one.has(text) && !two.has(text) {
				return errors.New("not yet")
			}
			return nil
		})
	}
	if one.has(message+"TCP 1") == one.has(message+"TCP 2") {
		t.Error("one collector received the lines of both senders")
	}
}

// received returns an error if a collector has not received the message.
func received(message string, all ...*collector) error {
	for i, c := range all {
		if !c.has(message) {
			return fmt.Errorf("collector %d has not received %q", i, message)
		}
	}
	return nil
}
