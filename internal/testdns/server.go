// Package testdns is a name server for tests. The server runs on 127.0.0.1, and gives the answers that a test chooses,
// or none.
package testdns

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// A Server is a name server for the lookups of this process. Its methods are safe for concurrent use.
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
	s := &Server{conn: conn, answer: answer, asked: map[string]int{}}
	s.running.Go(s.serve)
	former := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: s.dial}
	t.Cleanup(func() {
		net.DefaultResolver = former
		_ = conn.Close() // ends serve
		s.running.Wait()
	})
	return s
}

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

func (s *Server) serve() {
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
