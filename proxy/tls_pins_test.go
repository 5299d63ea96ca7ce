package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// A script of reads for a tls.Conn: each element is what one Read returns, and nil is a temporary error. Writes go to
// out. After the last element, Read returns io.EOF.
type scriptedConn struct {
	net.Conn // nil: what is not replaced is not called
	in       [][]byte
	out      bytes.Buffer
	writeErr error
	ended    bool // Read has returned io.EOF
}

func (c *scriptedConn) Read(b []byte) (int, error) {
	if len(c.in) == 0 {
		c.ended = true
		return 0, io.EOF
	}
	if c.in[0] == nil {
		c.in = c.in[1:]
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, c.in[0])
	if c.in[0] = c.in[0][n:]; len(c.in[0]) == 0 {
		c.in = c.in[1:]
	}
	return n, nil
}

func (c *scriptedConn) Write(b []byte) (int, error) {
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	return c.out.Write(b)
}

func (c *scriptedConn) SetWriteDeadline(time.Time) error { return nil }
func (c *scriptedConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptedConn) Close() error                     { return nil }

// A switchedConn is the net.Conn of a tls.Conn, and can be replaced.
type switchedConn struct{ net.Conn }

// tlsPair returns both ends of a connection after the handshake. What one end reads is scripted, and what it writes can
// be seen in its script.
func tlsPair(t *testing.T, version uint16) (client, server *tls.Conn, fromClient, fromServer *scriptedConn) {
	t.Helper()
	a, b := net.Pipe()
	ca, cb := &switchedConn{a}, &switchedConn{b}
	client, server = tls.Client(ca, clientConfig(version)), tls.Server(cb, serverConfig(version))
	shaken := make(chan error, 1)
	go func() {
		err := server.Handshake()
		if err == nil { // the client reads the tickets too
			_, err = server.Write([]byte("x"))
		}
		shaken <- err
	}()
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	fromServer, fromClient = &scriptedConn{}, &scriptedConn{}
	ca.Conn, cb.Conn = fromClient, fromServer
	return client, server, fromClient, fromServer
}

// sealed returns what conn writes for the text.
func sealed(conn *tls.Conn, to *scriptedConn, text string) []byte {
	to.out.Reset()
	io.WriteString(conn, text)
	return bytes.Clone(to.out.Bytes())
}

func notified(conn *tls.Conn, to *scriptedConn) []byte {
	to.out.Reset()
	conn.CloseWrite()
	return bytes.Clone(to.out.Bytes())
}

// Lictor relies on the following, which crypto/tls does not promise.
func TestCryptoTLSKeepsItsHabits(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Run("a temporary error of a read is not kept", func(t *testing.T) { testTemporaryErrors(t, version) })
			t.Run("an end without close_notify", func(t *testing.T) { testBareEnds(t, version) })
			t.Run("bytes come with the error behind them", func(t *testing.T) { testBytesWithError(t, version) })
			t.Run("close_notify ends one direction", func(t *testing.T) { testCloseNotify(t, version) })
			t.Run("an error of a write is kept", func(t *testing.T) { testWriteErrors(t, version) })
		})
	}
}

// Whatever part of a record has come, a read can be repeated after a temporary error.
func testTemporaryErrors(t *testing.T, version uint16) {
	client, server, fromClient, fromServer := tlsPair(t, version)
	record := sealed(client, fromClient, "hello")
	for i := range record {
		fromServer.in = append(fromServer.in, nil, record[i:i+1])
	}
	got, failed := make([]byte, 10), 0
	for {
		n, err := server.Read(got)
		if err == nil {
			if string(got[:n]) != "hello" || failed != len(record) {
				t.Fatalf("got %q after %d temporary errors, want hello after %d", got[:n], failed, len(record))
			}
			return
		}
		if failed++; n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %d bytes and %v, want the temporary error", n, err)
		}
	}
}

// An end of the connection between two records looks like a close_notify, and only the connection itself knows better.
// An end within a record is another error.
func testBareEnds(t *testing.T, version uint16) {
	client, server, fromClient, fromServer := tlsPair(t, version)
	record := sealed(client, fromClient, "hello")
	fromServer.in = [][]byte{record}
	got := make([]byte, 10)
	if n, err := server.Read(got); n != 5 || err != nil {
		t.Fatalf("got %d bytes, %v, want 5", n, err)
	}
	if n, err := server.Read(got); n != 0 || err != io.EOF || !fromServer.ended {
		t.Errorf("got %d bytes, %v, the connection ended: %v; want io.EOF of the connection", n, err, fromServer.ended)
	}
	for _, part := range []int{1, 5, 6, len(record) - 1} {
		client, server, fromClient, fromServer := tlsPair(t, version)
		fromServer.in = [][]byte{sealed(client, fromClient, "hello")[:part]}
		if n, err := server.Read(got); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) || !fromServer.ended {
			t.Errorf("after %d bytes of a record: got %d bytes, %v, want io.ErrUnexpectedEOF", part, n, err)
		}
	}
}

// A read that returns an error may return bytes too.
func testBytesWithError(t *testing.T, version uint16) {
	client, server, fromClient, fromServer := tlsPair(t, version)
	all := append(sealed(client, fromClient, "hello"), notified(client, fromClient)...)
	fromServer.in = [][]byte{all}
	got := make([]byte, 10)
	n, err := server.Read(got)
	if n != 5 || err != nil && err != io.EOF {
		t.Fatalf("got %d bytes, %v, want 5", n, err)
	}
	if version == tls.VersionTLS12 && err != io.EOF {
		t.Errorf("got %v, want io.EOF with the bytes; if that is so in all cases now, a comment can go", err)
	}
	for range 2 { // the end is kept
		if n, err := server.Read(got); n != 0 || err != io.EOF || fromServer.ended {
			t.Errorf("got %d bytes, %v, want io.EOF by close_notify", n, err)
		}
	}
}

// After CloseWrite nothing can be written, but all can be read. After the close_notify of the peer all can be written.
// A second CloseWrite writes nothing.
func testCloseNotify(t *testing.T, version uint16) {
	client, server, fromClient, fromServer := tlsPair(t, version)
	fromServer.in = [][]byte{notified(client, fromClient)}
	if again := notified(client, fromClient); len(again) != 0 {
		t.Errorf("a second CloseWrite wrote %d bytes", len(again))
	}
	if _, err := client.Write([]byte("x")); err == nil {
		t.Error("a write after CloseWrite did not fail")
	}
	if n, err := server.Read(make([]byte, 10)); n != 0 || err != io.EOF {
		t.Fatalf("got %d bytes, %v, want io.EOF", n, err)
	}
	fromClient.in = [][]byte{sealed(server, fromServer, "answer")}
	got := make([]byte, 10)
	if n, err := client.Read(got); err != nil || string(got[:n]) != "answer" {
		t.Errorf("got %q, %v, want the answer", got[:n], err)
	}
}

// An error of a write is permanent, even if it is temporary. So Lictor's writes never fail.
func testWriteErrors(t *testing.T, version uint16) {
	client, _, fromClient, _ := tlsPair(t, version)
	fromClient.writeErr = os.ErrDeadlineExceeded
	if _, err := client.Write([]byte("x")); err == nil {
		t.Fatal("got no error")
	}
	fromClient.writeErr = nil
	if _, err := client.Write([]byte("x")); err == nil {
		t.Error("the error of a write was forgotten; then Lictor could do without its queue")
	}
}
