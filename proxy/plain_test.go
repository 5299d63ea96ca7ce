package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// plainToo returns what a service needs so that clients may speak TLS, and need not.
func plainToo() *AcceptTLS {
	a := acceptTLS(serverConfig(0))
	a.Plain = true
	return a
}

// Clients in plain text and with TLS share a listener. What a client in plain text says reaches the endpoint as it is.
func TestPlainClientsBesideTLS(t *testing.T) {
	for _, header := range []bool{false, true} {
		forEachEngine(t, func(t *testing.T, h *house) {
			s := Service{AcceptTLS: plainToo()}
			if header {
				s.AcceptProxy = &AcceptProxy{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
			}
			at := h.serve(s, tcpServer(t, echo))
			dial := func() net.Conn {
				c := dialTCP(t, at)
				if header {
					c.Write(proxyproto.AppendV1(nil, realClient, realServer))
				}
				return c
			}
			for _, text := range []string{"GET / HTTP/1.0\r\n\r\n", "x", "\x16", "\x16\x04", "\x16\x03\x01\x00\x00\x01",
				"\x16\x03\x01\x02\x00\x02 is no ClientHello", "\x00\x00\x00\x08\x04\xd2\x16\x2f"} {
				c := dial()
				io.WriteString(c, text[:1])
				if text == "\x16" {
					text += "\x01" // one byte does not tell
					io.WriteString(c, text[1:])
				} else {
					io.WriteString(c, text[1:])
				}
				got := make([]byte, len(text))
				if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
					t.Errorf("got %q, %v, want %q back", got, err, text)
				}
				c.Close()
			}
			big := bytes.Repeat([]byte("all of it "), 1<<18)
			c := dial()
			go c.Write(big)
			got := make([]byte, len(big))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, big) {
				t.Errorf("%v: not all came back", err)
			}
			if header {
				return // dialTLS sends none
			}
			exchange(t, dialTLS(t, at, clientConfig(0)), "hello")
			list, _, err := h.Connections(t.Context(), ConnectionQuery{Limit: 10})
			if err != nil || h.stats().Refused != 0 {
				t.Errorf("%v: %d clients were refused", err, h.stats().Refused)
			}
			withTLS := 0
			for _, c := range list {
				if c.TLS != nil {
					withTLS++
				}
			}
			if withTLS != 1 {
				t.Errorf("%d connections have TLS, want 1: %+v", withTLS, list)
			}
		})
	}
}

// A ClientHello that comes byte by byte is one.
func TestSlowClientHelloBesidePlainText(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		at := h.serve(Service{AcceptTLS: plainToo()}, tcpServer(t, echo))
		c := tlsClientOver(t, piecemeal{dialTCP(t, at).(*net.TCPConn)})
		exchange(t, c, "byte by byte")
	})
}

// A client that sends nothing is served in plain text after a while: perhaps the server speaks first.
func TestServerSpeaksFirstInPlainText(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		at := h.serve(Service{AcceptTLS: plainToo()}, tcpServer(t, func(c testConn) {
			io.WriteString(c, "I speak first")
			echo(c)
		}))
		c := dialTCP(t, at)
		awaitState(t, h, ConnectionGreeting)
		got := make([]byte, 13)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "I speak first" {
			t.Errorf("got %q, %v", got, err)
		}
		exchange(t, c, "and I answer")
	})
}

// A client that ends its side without a word is served as one without TLS.
func TestPlainClientThatOnlyListens(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		at := h.serve(Service{AcceptTLS: plainToo()}, tcpServer(t, func(c testConn) {
			io.Copy(io.Discard, c)
			io.WriteString(c, "the answer")
		}))
		c := dialTCP(t, at)
		c.CloseWrite()
		if b, err := io.ReadAll(c); err != nil || string(b) != "the answer" {
			t.Errorf("got %q, %v", b, err)
		}
	})
}

// A client that goes before it has said anything leaves nothing behind.
func TestPlainClientThatGoes(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		next := h.records()
		at := h.serve(Service{AcceptTLS: plainToo()}, tcpServer(t, echo))
		c := dialTCP(t, at)
		awaitState(t, h, ConnectionGreeting)
		c.SetLinger(0)
		c.Close()
		if r := next(); r.Reason != ReasonClientFailed || r.TLS != nil {
			t.Errorf("got the record %+v", r)
		}
		c = dialTCP(t, at)
		awaitState(t, h, ConnectionGreeting)
		h.Close()
		_, err := io.Copy(io.Discard, c)
		wantReset(t, err)
	})
}

// A client that has not said anything when plain text is forbidden must speak TLS.
func TestPlainTextIsForbiddenMeanwhile(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server := tcpServer(t, echo)
		s := Service{AcceptTLS: plainToo(), Listen: []netip.AddrPort{freePort(t, TCP)}}
		at := h.serve(s, server)
		plain := dialTCP(t, at)
		exchange(t, plain, "before")
		c := dialTCP(t, at)
		eventually(t, equals("connections", h.accepted, 2))
		s.AcceptTLS = acceptTLS(serverConfig(0))
		s.AcceptTLS.Timeout = 10 * time.Second
		h.serve(s, server)
		io.WriteString(c, "in plain text")
		if b, _ := io.ReadAll(c); bytes.Contains(b, []byte("plain")) {
			t.Error("the client was served")
		}
		eventually(t, equals("refused", func() int64 { return h.stats().RefusedBy[RefusedHandshake] }, 1))
		exchange(t, plain, "still there")
	})
}

// Plain clients have no identity, so nobody judges them.
func TestReexamineLeavesPlainClientsAlone(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		m := newMesh(t)
		a := m.accept(0)
		a.Plain = true
		at := h.serve(Service{AcceptTLS: a}, tcpServer(t, echo))
		plain, web := dialTCP(t, at), m.dial(at, "web")
		exchange(t, plain, "hello")
		m.set("web")
		if n := h.Reexamine("s", m.judge); n != 1 || m.judged.Load() != 1 {
			t.Errorf("%d connections ended, %d were judged, want 1 and 1", n, m.judged.Load())
		}
		wantEnd(t, web)
		exchange(t, plain, "still there")
	})
}

func TestGuess(t *testing.T) {
	hello := "\x16\x03\x01\x02\x00\x01"
	for _, tt := range []struct {
		b     string
		whole bool
		want  guess
	}{
		{"", false, needsMore}, {"", true, speaksPlain}, {"G", false, speaksPlain}, {"\x16", false, needsMore},
		{"\x16", true, speaksTLS}, {"\x16\x01", false, speaksPlain}, {hello[:5], false, needsMore},
		{hello, false, speaksTLS}, {hello + "more", false, speaksTLS}, {hello[:5] + "\x02", false, speaksPlain},
		{sslRequest, false, speaksPlain},
	} {
		if got := guessOf([]byte(tt.b), tt.whole); got != tt.want {
			t.Errorf("%q, %v: got %d, want %d", tt.b, tt.whole, got, tt.want)
		}
	}
}

// tlsClientOver returns a client that speaks TLS over c. The test closes it.
func tlsClientOver(t *testing.T, c net.Conn) *tls.Conn {
	s := tls.Client(c, clientConfig(0))
	t.Cleanup(func() { s.Close() })
	return s
}
