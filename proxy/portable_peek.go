package proxy

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"
)

// This file has the openings of pairs whose client came over a shared listener, see docs/ends.md.

// A visit is the stay of a client with a service. Only the client's own goroutine uses it.
type visit struct {
	service  *service
	entered  bool // whether the service counts the client as a connection
	homeless bool // whether no service holds descriptors for the client
	peek     peek
}

// newVisit begins the visit of a client of t. The first service holds descriptors for it.
func newVisit(t *tenants) *visit {
	v := &visit{service: t.service}
	t.service.at(0).active.Add(1)
	if t.routes == nil {
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

// moveTo makes s the service of a client that has none of its own yet. An error means that s gets no descriptors.
func (v *visit) moveTo(s *service) error {
	if s != v.service {
		v.homeless = !v.service.share.pass(s.share, pairDescriptors)
		v.service.at(0).active.Add(-1)
		s.at(0).active.Add(1)
		v.service = s
	}
	if v.homeless {
		return noDescriptors(s)
	}
	return nil
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
			// The routes in force now decide, not those of the moment when the client came.
			s, err := t.tenants.Load().choose(m)
			if err != nil {
				return nil, err
			}
			return b, v.moveTo(s)
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
