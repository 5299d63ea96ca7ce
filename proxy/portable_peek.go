package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// This file has the openings of pairs whose client came over a shared listener, see docs/ends.md.

// A visit is the stay of a client with a service. Only the client's own goroutine uses it.
type visit struct {
	service  *service
	entered  bool // whether the service counts the client as a connection
	homeless bool // whether no service holds descriptors for the client
	peek     peek
}

// visit begins the visit of a client of s, for which s holds descriptors.
func (t *tcpSocket) visit(s *service) *visit {
	v := &visit{service: s}
	s.at(0).active.Add(1)
	if t.routes.Load() == nil {
		v.enter()
	}
	return v
}

// enter counts the client as a connection of its service.
func (v *visit) enter() {
	if !v.entered {
		v.entered = true
		v.service.at(0).connections.Add(1)
	}
}

// moveTo makes s the service of a client that has none of its own yet. moveTo returns false if s gets no descriptors.
func (v *visit) moveTo(s *service) bool {
	if s != v.service {
		v.homeless = !v.service.share.pass(s.share, pairDescriptors)
		v.service.at(0).active.Add(-1)
		s.at(0).active.Add(1)
		v.service = s
	}
	return !v.homeless
}

func (v *visit) end() {
	v.enter()
	v.service.at(0).active.Add(-1)
	if !v.homeless {
		v.service.share.release(pairDescriptors)
	}
}

// peek waits for the client's ClientHello, and moves v to the service that it chooses. peek returns all bytes of the
// client behind the requests that were answered; b are the first of them. If the client has gone, the error is a
// clientError.
func (t *tcpSocket) peek(client streamConn, b []byte, v *visit) ([]byte, error) {
	_ = client.SetDeadline(time.Now().Add(peekTimeout))
	stop := context.AfterFunc(t.cutting, func() { _ = client.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if stop() {
			_ = client.SetDeadline(time.Time{})
		}
	}()
	b = slices.Clone(b) // the TLVs of a PROXY header may be in front of b
	for {
		var m firstMessage
		if len(b) > 0 {
			answer, message, err := v.peek.look(b)
			if err != nil {
				return nil, err
			}
			if m = message; answer != 0 {
				if _, err := client.Write([]byte{answer}); err != nil {
					return nil, t.goneWithin(err, 0)
				}
				b = b[:0]
			}
		}
		if m.whole {
			return b, t.route(m, v)
		}
		b = slices.Grow(b, 512)
		n, err := client.Read(b[len(b):cap(b)])
		if b = b[:len(b)+n]; err != nil {
			return nil, t.goneWithin(err, len(b))
		}
	}
}

// goneWithin returns why a client is refused from which n bytes were read, and then err.
func (t *tcpSocket) goneWithin(err error, n int) error {
	switch {
	case t.cutting.Err() != nil:
		return t.cutting.Err()
	case err == io.EOF && n == 0:
		return &clientError{}
	case err == io.EOF:
		return errEndedWithin
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errUnroutable
	}
	return &clientError{rootOf(err)}
}

// route moves v to the service that the client's first message chooses. The routes in force now decide, not those of
// the moment when the client came.
func (t *tcpSocket) route(m firstMessage, v *visit) error {
	s := t.service.Load() // unless a reload has ended the sharing, r knows better
	if r := t.routes.Load(); r != nil {
		var err error
		if s, err = r.choose(m); err != nil {
			return err
		}
	}
	if !v.moveTo(s) {
		return fmt.Errorf("%w: service %q has no more", errOutOfDescriptors, s.name())
	}
	return nil
}

// tlsRequest returns what an endpoint of s gets first if the client of h has sent sslRequest: a PROXY header, if the
// service sends one, and sslRequest. Otherwise tlsRequest returns nil.
func (s *service) tlsRequest(h *hop) []byte {
	if !h.asksTLS {
		return nil
	}
	var b []byte
	if v := s.spec.Load().SendProxy; v != proxyproto.None {
		b = appendProxyHeader(b, v, h)
	}
	return append(b, sslRequest...)
}

// askTLS sends request to an endpoint, which must accept within timeout.
func askTLS(ctx context.Context, c streamConn, request []byte, timeout time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(timeout))
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var answer [1]byte
	_, err := c.Write(request)
	if err == nil {
		_, err = io.ReadFull(c, answer[:])
	}
	switch {
	case err == io.EOF:
		return syscall.ECONNRESET
	case err != nil:
		return err
	}
	if err = takesTLS(answer[0]); err != nil {
		return err
	}
	return c.SetDeadline(time.Time{})
}
