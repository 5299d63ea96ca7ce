//go:build unix

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// A client is one connection through Lictor to an instance, which has sent its name.
type client struct {
	*net.TCPConn
	reader *bufio.Reader
	name   string // of the instance
}

// connect dials a service and waits for the name of the instance that serves the connection.
func connect(ctx context.Context, addr netip.AddrPort) (*client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	c := &client{TCPConn: conn.(*net.TCPConn), reader: bufio.NewReader(conn)}
	if c.name, err = nameFrom(ctx, conn, c.reader); err != nil {
		return nil, err
	}
	return c, nil
}

// nameFrom reads the name of the instance, which comes first, until ctx ends. After an error, conn is closed.
func nameFrom(ctx context.Context, conn net.Conn, reader *bufio.Reader) (name string, err error) {
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	line, err := reader.ReadString('\n')
	if err != nil {
		_ = conn.Close()
		return "", err
	}
	return strings.TrimSuffix(line, "\n"), conn.SetDeadline(time.Time{})
}

// mustConnect is connect, but fails the test on an error. The connection is closed when the test ends.
func mustConnect(t testing.TB, addr netip.AddrPort) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := connect(ctx, addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// echo sends a line, and returns an error if another line comes back.
func (c *client) echo(line string) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	defer func() { _ = c.SetDeadline(time.Time{}) }()
	if _, err := fmt.Fprintln(c, line); err != nil {
		return err
	}
	got, err := c.reader.ReadString('\n')
	if err != nil {
		return err
	}
	if got != line+"\n" {
		return fmt.Errorf("got %q back, want %q", got, line)
	}
	return nil
}

// ask connects, and returns the name of the instance that answered.
func ask(ctx context.Context, addr netip.AddrPort) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := connect(ctx, addr)
	if err != nil {
		return "", err
	}
	return c.name, c.Close()
}

// count makes n connections, one after another, and returns how many each instance answered.
func count(t testing.TB, addr netip.AddrPort, n int) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for range n {
		name, err := ask(t.Context(), addr)
		must(t, err)
		counts[name]++
	}
	return counts
}

// awaitRotation waits until each of the named instances, and no other, answers one of as many connections in a row.
func awaitRotation(t testing.TB, addr netip.AddrPort, names ...string) {
	t.Helper()
	slices.Sort(names)
	eventually(t, "the rotation is "+strings.Join(names, ", "), func() error {
		var got []string
		for range 2 * len(names) {
			name, err := ask(t.Context(), addr)
			if err != nil {
				return err
			}
			got = append(got, name)
		}
		slices.Sort(got)
		if want := slices.Sorted(slices.Values(slices.Concat(names, names))); !slices.Equal(got, want) {
			return fmt.Errorf("got %v", got)
		}
		return nil
	})
}

// wantCounts makes as many connections as the counts add up to, and fails the test if the counts differ.
func wantCounts(t testing.TB, addr netip.AddrPort, want map[string]int) {
	t.Helper()
	if err := counted(t, addr, want); err != nil {
		t.Error(err)
	}
}

func counted(t testing.TB, addr netip.AddrPort, want map[string]int) error {
	t.Helper()
	n := 0
	for _, c := range want {
		n += c
	}
	if got := count(t, addr, n); !maps.Equal(got, want) {
		return fmt.Errorf("%d connections: got %v, want %v", n, got, want)
	}
	return nil
}

// A udpClient is one connected UDP socket, so it receives only what comes from the address to which it sends.
type udpClient struct{ *net.UDPConn }

func dialUDP(t testing.TB, addr netip.AddrPort) *udpClient {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &udpClient{conn}
}

// exchange sends a datagram and waits two seconds for an answer. UDP may lose either, so callers try again.
func (c *udpClient) exchange(datagram []byte) ([]byte, error) {
	if _, err := c.Write(datagram); err != nil {
		return nil, err
	}
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	return buf[:n], err
}

// awaitAnswer sends "who" until one of the wanted instances answers, and returns its name.
func (c *udpClient) awaitAnswer(t testing.TB, wanted ...string) string {
	t.Helper()
	var got string
	eventually(t, fmt.Sprintf("an answer from %v", wanted), func() error {
		answer, err := c.exchange(who)
		if err != nil {
			return err
		}
		if got = string(answer); !slices.Contains(wanted, got) {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
	return got
}

// receive waits for one datagram.
func (c *udpClient) receive(t testing.TB) string {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	must(t, err)
	return string(buf[:n])
}
