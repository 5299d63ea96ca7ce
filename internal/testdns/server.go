// Package testdns is a name server for tests. The server runs on 127.0.0.1, and gives the answers that a test chooses,
// or none. Start makes the lookups of this process use the server. Listen does not, and its server also serves TCP.
package testdns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A Server is a name server. Its methods are safe for concurrent use.
type Server struct {
	conn    *net.UDPConn
	running sync.WaitGroup

	mu         sync.Mutex // guards the fields below
	answer     func(name string) []netip.Addr
	code       dnsmessage.RCode
	asked      map[string]int
	open, most int
}

// Start starts a Server, and makes net.DefaultResolver use it until the test ends. The function answer returns the
// addresses of a name, which is in lower case and without a final dot. If answer returns nil, the Server does not
// answer.
func Start(t testing.TB, answer func(name string) []netip.Addr) *Server {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(conn, answer)
	former := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: s.dial}
	t.Cleanup(func() {
		net.DefaultResolver = former
		_ = conn.Close() // ends serveUDP
		s.running.Wait()
	})
	return s
}

// Listen starts a Server over UDP and TCP, at the same port, until the test ends. The lookups of this process do not
// use it. The function answer is as in Start.
func Listen(t testing.TB, answer func(name string) []netip.Addr) *Server {
	t.Helper()
	conn, listener, err := listenBoth()
	for try := 0; err != nil && try < 9; try++ { // another program may have the port over TCP
		conn, listener, err = listenBoth()
	}
	if err != nil {
		t.Fatal(err)
	}
	s := serve(conn, answer)
	s.running.Go(func() { s.serveTCP(listener) })
	t.Cleanup(func() {
		_ = conn.Close()
		_ = listener.Close()
		s.running.Wait()
	})
	return s
}

// listenBoth opens a port of 127.0.0.1 for UDP and TCP.
func listenBoth() (*net.UDPConn, *net.TCPListener, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(conn.LocalAddr().(*net.UDPAddr).AddrPort()))
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, listener, nil
}

// serve begins to answer what comes to conn.
func serve(conn *net.UDPConn, answer func(name string) []netip.Addr) *Server {
	s := &Server{conn: conn, answer: answer, asked: map[string]int{}}
	s.running.Go(s.serveUDP)
	return s
}

// Addr returns the address at which the Server listens.
func (s *Server) Addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Answer replaces the answer function.
func (s *Server) Answer(answer func(name string) []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// Code makes all answers errors with this code, such as dnsmessage.RCodeServerFailure. RCodeSuccess returns to normal
// answers.
func (s *Server) Code(code dnsmessage.RCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.code = code
}

// Asked returns the number of queries for the IPv4 addresses of a name.
func (s *Server) Asked(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name]
}

// Sockets returns the number of sockets that lookups have open now, and its maximum so far.
func (s *Server) Sockets() (open, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open, s.most
}

// dial opens the socket for a lookup.
func (s *Server) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp4", s.conn.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	s.count(1)
	return &socket{UDPConn: c.(*net.UDPConn), server: s}, nil
}

func (s *Server) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += n
	s.most = max(s.most, s.open)
}

// A socket is the socket of a lookup. The socket embeds a UDPConn, because package net then uses the protocol for UDP.
type socket struct {
	*net.UDPConn
	server *Server
	once   sync.Once
}

// Close implements net.Conn.
func (c *socket) Close() error {
	c.once.Do(func() { c.server.count(-1) })
	return c.UDPConn.Close()
}

func (s *Server) serveUDP() {
	buf := make([]byte, 1<<12)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if reply := s.reply(buf[:n]); reply != nil {
			_, _ = s.conn.WriteToUDPAddrPort(reply, from) // a client that has closed its socket needs no answer
		}
	}
}

// serveTCP answers one client after another until the listener is closed.
func (s *Server) serveTCP(listener *net.TCPListener) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(tcpPatience))
		for s.answerTCP(conn) == nil {
		}
		_ = conn.Close()
	}
}

// tcpPatience limits the time of a client over TCP, so that one that stays does not keep others waiting for ever.
const tcpPatience = 10 * time.Second

// answerTCP reads a query and writes the answer. Over TCP, two bytes with the length precede each message (RFC 1035,
// section 4.2.2).
func (s *Server) answerTCP(conn net.Conn) error {
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return err
	}
	query := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, query); err != nil {
		return err
	}
	reply := s.reply(query)
	if reply == nil {
		return nil
	}
	_, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
	return err
}

// reply returns the answer to a query, or nil for no answer.
func (s *Server) reply(query []byte) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	s.mu.Lock()
	if q.Type == dnsmessage.TypeA {
		s.asked[name]++
	}
	answer, code := s.answer, s.code
	s.mu.Unlock()
	addrs := answer(name)
	if code != dnsmessage.RCodeSuccess {
		addrs = []netip.Addr{}
	}
	if addrs == nil {
		return nil
	}
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, RecursionAvailable: true, RCode: code},
		Questions: []dnsmessage.Question{q},
	}
	for _, a := range addrs {
		r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}}
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			r.Body = &dnsmessage.AResource{A: a.As4()}
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			r.Body = &dnsmessage.AAAAResource{AAAA: a.As16()}
		default:
			continue
		}
		reply.Answers = append(reply.Answers, r)
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}
