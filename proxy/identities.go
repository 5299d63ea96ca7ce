package proxy

import (
	"crypto/tls"
	"errors"
	"sync"
)

// ErrForbidden is wrapped by the error of a tls.Config's VerifyConnection if the client has proved who it is, and may
// not use the service. Such a client is refused with RefusedIntention instead of RefusedHandshake, and its record says
// who it is and has the whole error. Whoever returns ErrForbidden must have verified the client's certificate before.
var ErrForbidden = errors.New("the client may not use the service")

// An identityError refuses a client because of its identity.
type identityError struct {
	peer    *TLSPeer
	refusal Refusal
	why     error
}

func (e *identityError) Error() string { return e.why.Error() }
func (e *identityError) Unwrap() error { return e.why }

// identityErrorIn returns the identityError that err wraps, or nil.
func identityErrorIn(err error) *identityError {
	var e *identityError
	errors.As(err, &e)
	return e
}

// A forbiddenError ends the connection of a client that was served, and may not use the service any more.
type forbiddenError struct{ why error }

func (e *forbiddenError) Error() string { return e.why.Error() }
func (e *forbiddenError) Unwrap() error { return e.why }

// An identityIndex lists the live connections of a service whose clients have proved an identity, so that each identity
// is judged once, however many connections it has. The zero value is ready to use. Safe for concurrent use.
//
// No handshake gets past a change of what is allowed. Each handshake judges before its connection is listed. Whoever
// changes what is allowed calls reexamine afterwards, which judges all that are listed. A handshake that was under way
// during a call of reexamine is judged again once its connection is listed.
type identityIndex struct {
	mu      sync.Mutex
	all     map[string]*identified // by identity; only identities with connections
	judge   func(*TLSPeer) error   // of the last call of reexamine; nil if there was none
	changes uint64                 // calls of reexamine
}

// identified are the live connections of one identity. The lock of the index guards it.
type identified struct {
	index *identityIndex
	id    string
	peer  *TLSPeer // of the connection that was listed last
	conns map[identifiedConn]struct{}
}

// An identifiedConn is a connection that an identityIndex lists. Each engine has a type of its own.
type identifiedConn interface {
	// forbid resets the connection because of why. Only the engine calls it, see engine.forbid.
	forbid(why error)
}

// changed returns how often reexamine was called. A handshake calls changed before it begins.
func (x *identityIndex) changed() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.changes
}

// join lists c, a connection with peer, which has an identity. before is what changed has returned before the
// handshake. An error refuses the client; then c is not listed.
func (x *identityIndex) join(c identifiedConn, peer *TLSPeer, before uint64) (*identified, error) {
	i, judge := x.add(c, peer, before)
	if judge == nil {
		return i, nil
	}
	if err := judge(peer); err != nil {
		i.leave(c)
		return nil, &identityError{peer, RefusedIntention, err}
	}
	return i, nil
}

// add lists c. If peer must be judged again, add returns the judge.
func (x *identityIndex) add(c identifiedConn, peer *TLSPeer, before uint64) (*identified, func(*TLSPeer) error) {
	id := peer.Identity()
	x.mu.Lock()
	defer x.mu.Unlock()
	i := x.all[id]
	if i == nil {
		if x.all == nil {
			x.all = map[string]*identified{}
		}
		i = &identified{index: x, id: id, conns: map[identifiedConn]struct{}{}}
		x.all[id] = i
	}
	i.peer = peer
	i.conns[c] = struct{}{}
	if x.changes == before {
		return i, nil
	}
	return i, x.judge
}

// leave undoes join.
func (i *identified) leave(c identifiedConn) {
	i.index.mu.Lock()
	defer i.index.mu.Unlock()
	if delete(i.conns, c); len(i.conns) == 0 {
		delete(i.index.all, i.id)
	}
}

// reexamine calls judge once for each identity, and forbid with the connections of those for which judge returns an
// error.
func (x *identityIndex) reexamine(judge func(*TLSPeer) error, forbid func(id string, all []identifiedConn, why error)) {
	for _, peer := range x.peers(judge) {
		if why := judge(peer); why != nil {
			id := peer.Identity()
			forbid(id, x.conns(id), why)
		}
	}
}

// peers returns one peer of each identity that is listed. Handshakes that are under way will be judged by judge.
func (x *identityIndex) peers(judge func(*TLSPeer) error) []*TLSPeer {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.judge = judge
	x.changes++
	all := make([]*TLSPeer, 0, len(x.all))
	for _, i := range x.all {
		all = append(all, i.peer)
	}
	return all
}

// conns returns the connections of an identity.
func (x *identityIndex) conns(id string) (all []identifiedConn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if i := x.all[id]; i != nil {
		for c := range i.conns {
			all = append(all, c)
		}
	}
	return all
}

// A membership is what a service has noted of a connection with an identity, for as long as the connection lasts.
type membership struct {
	of      *identified
	counted bool // by service.clients
}

// enlist notes c, a connection with peer, which has an identity. before is what identities.changed has returned before
// the handshake. An error refuses the client.
func (s *service) enlist(c identifiedConn, peer *TLSPeer, before uint64) (m membership, err error) {
	key := ClientKey{Identity: peer.Identity()}
	if limit := s.spec.Load().MaxPerIdentity; limit > 0 {
		if m.counted = s.clients.enter(key, limit); !m.counted {
			return m, &identityError{peer, RefusedPerIdentity, errIdentityLimit}
		}
	}
	if m.of, err = s.identities.join(c, peer, before); err != nil && m.counted {
		s.uncountKey(key)
	}
	return m, err
}

// delist undoes enlist.
func (s *service) delist(c identifiedConn, m membership) {
	m.of.leave(c)
	if m.counted {
		s.uncountKey(ClientKey{Identity: m.of.id})
	}
}

// servicesByName finds services, even those that Apply has removed while their connections go on. It has a lock of its
// own, so that a search does not wait for Apply. The zero value is ready to use.
type servicesByName struct {
	mu  sync.Mutex
	all map[string][]*service
}

// replace makes now the services of Apply. A removed service is found for as long as it has descriptors.
func (n *servicesByName) replace(now map[string]*service) {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[string][]*service, len(now))
	for name, s := range now {
		all[name] = []*service{s}
	}
	for name, some := range n.all {
		for _, s := range some {
			if taken, _ := s.share.load(); s != now[name] && taken > 0 {
				all[name] = append(all[name], s)
			}
		}
	}
	n.all = all
}

func (n *servicesByName) find(name string) []*service {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all[name]
}

// Reexamine calls judge for each identity (TLSPeer.Identity) that live connections of a service have, and resets all
// connections of an identity for which judge returns an error. Reexamine returns how many these are. They end with
// ReasonIntention, within milliseconds, in whatever state they are. Clients without an identity are not judged, such as
// those that AcceptTLS.Plain has let in.
//
// Call Reexamine after each change of what VerifyConnection of the service's AcceptTLS allows. A client whose handshake
// is under way during the call is judged again by judge, or by that of a later call. So judge must go on to say what is
// allowed at the time when it is called. judge is called once for each identity, however many connections it has, and
// must not block.
//
// Reexamine does not wait for Apply. It goes on to work after Release, and for connections of a service that Apply has
// removed.
func (p *Proxier) Reexamine(service string, judge func(*TLSPeer) error) (ended int) {
	for _, s := range p.byName.find(service) {
		s.identities.reexamine(judge, func(id string, all []identifiedConn, why error) {
			ended += len(all)
			p.engine.forbid(all, why)
			s.forbidden(id, len(all), why)
		})
	}
	return ended
}

// forbidden logs that live connections of an identity are reset.
func (s *service) forbidden(id string, connections int, why error) {
	if connections > 0 && s.unwanted.due() {
		s.log.Info("connections reset, because their client may not use the service any more",
			s.unwanted.withHeld("identity", id, "connections", connections, "error", why)...)
	}
}

// forbiddenIn returns why a client is refused whose handshake over c has failed with err, or nil if the client has not
// proved who it is.
func forbiddenIn(c *tls.Conn, err error) error {
	if !errors.Is(err, ErrForbidden) {
		return nil
	}
	return &identityError{tlsPeerOf(c.ConnectionState()), RefusedIntention, err}
}
