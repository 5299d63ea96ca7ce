package proxy

import "context"

// This file has the portable engine's part of identityIndex.

// An identifiedClient is a client with an identity.
type identifiedClient struct {
	service *service
	cut     context.CancelCauseFunc
}

// forbid implements identifiedConn.
func (c *identifiedClient) forbid(why error) {
	c.service.at(0).endedIntention.Add(1)
	c.cut(&forbiddenError{why})
}

// forbid implements engine.
func (e *portable) forbid(all []identifiedConn, why error) {
	for _, c := range all {
		c.forbid(why)
	}
}

// identify lists a client of s if it has an identity. The connection must be cut when ctx ends, and left must be called
// when it has ended. before is what changed has returned before the handshake. An error refuses the client.
func (t *tcpSocket) identify(s *service, peer *TLSPeer, before uint64) (ctx context.Context, left func(), err error) {
	if peer == nil || peer.Identity() == "" {
		return t.cutting, func() {}, nil
	}
	c := &identifiedClient{service: s}
	ctx, c.cut = context.WithCancelCause(t.cutting)
	m, err := s.enlist(c, peer, before)
	if err != nil {
		c.cut(nil)
		return nil, nil, err
	}
	return ctx, func() {
		s.delist(c, m)
		c.cut(nil)
	}, nil
}
