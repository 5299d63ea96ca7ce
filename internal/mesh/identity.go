package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// sessionLife is for how long sessions are resumed after a full handshake. A server that follows intentions may ask
	// whether a client is allowed only during full handshakes, as those do that use Consul's Go SDK, for example
	// "consul connect proxy". If such an intention changes to deny, resumed sessions get in for this long.
	sessionLife = 10 * time.Second

	// maxPeers limits for how many endpoints sessions are kept, over all identities. Each identity may keep minPeers.
	maxPeers = 8192
	minPeers = 32
)

// An Identity is an identity in use by one service. Its methods are safe for concurrent use.
type Identity struct {
	*identity
	service string
}

// Config returns the configuration for the next handshake with the endpoint at address. The endpoint must prove that it
// is peer, the path of a SPIFFE ID such as "/ns/default/dc/dc1/svc/billing", in the trust domain of the Store.
// ServerName is the name to ask for (SNI); empty: none. Config returns the same configuration for some seconds, unless
// the certificate or the authorities change, so that sessions can be resumed. Config does not wait for Consul. Config
// returns ErrNotReady while there is no certificate that is valid, or no authority. The result must not be changed.
func (i *Identity) Config(address, peer, serverName string) (*tls.Config, error) {
	c, now := i.current.Load(), time.Now()
	if c == nil || now.After(c.leaf.to) {
		return nil, i.store.notReady(i.identity)
	}
	return c.config(endpoint{address, peer, serverName}, now)
}

// Ready returns a channel that is closed when Config has had what it needs for the first time.
func (i *Identity) Ready() <-chan struct{} { return i.ready }

// Close gives the identity back. The configurations that it has returned can still be used.
func (i *Identity) Close() { i.store.drop(i) }

// An identity is an identity that services use.
type identity struct {
	store *Store
	name  string

	// current is what handshakes use. It is nil until there are a certificate and authorities of one trust domain.
	current atomic.Pointer[current]
	ready   chan struct{} // closed when current is not nil any more

	// Store.mu guards these.
	users    map[*Identity]bool
	cancel   context.CancelFunc // ends the follower; nil before it is started
	leaf     *leaf              // the newest certificate; nil if there is none
	trouble  trouble
	reported health // of which certificate what was reported
}

// services returns the services that use the identity, sorted. The caller must hold Store.mu.
func (i *identity) services() (all []string) {
	for u := range i.users {
		if !slices.Contains(all, u.service) {
			all = append(all, u.service)
		}
	}
	slices.Sort(all)
	return all
}

// renew makes handshakes use the newest certificate and these authorities. If they are of different trust domains, the
// former pair stays in use: one of the two is about to be replaced as well. The caller must hold Store.mu.
func (i *identity) renew(r *roots) {
	if i.leaf == nil || r == nil || i.leaf.domain != r.domain {
		return
	}
	c := i.current.Load()
	if c != nil && c.leaf == i.leaf && c.roots == r {
		return
	}
	i.current.Store(&current{identity: i, leaf: i.leaf, roots: r})
	if c == nil {
		close(i.ready)
	}
}

// missing says what handshakes wait for. The caller must hold Store.mu.
func (i *identity) missing(r *roots, rootsErr error) error {
	err := i.trouble.err
	var text string
	switch c := i.current.Load(); {
	case c != nil:
		text = fmt.Sprintf("the certificate for identity %q has expired at %s", i.name,
			c.leaf.to.UTC().Format(time.RFC3339))
	case i.leaf == nil:
		text = fmt.Sprintf("no certificate for identity %q yet", i.name)
	case r == nil:
		text, err = "no authorities of the mesh yet", rootsErr
	default:
		text = fmt.Sprintf("the certificate for identity %q is of trust domain %s, and the authorities are of %s",
			i.name, i.leaf.domain, r.domain)
	}
	return &notReadyError{text, err}
}

// A notReadyError is an ErrNotReady that says what is missing.
type notReadyError struct {
	text string
	err  error // why it is missing; nil if that is not known
}

func (e *notReadyError) Error() string {
	if e.err == nil {
		return e.text
	}
	return e.text + ": " + e.err.Error()
}

func (e *notReadyError) Is(target error) bool { return target == ErrNotReady }

// A current is what the handshakes of an identity use, until the certificate or the authorities change.
type current struct {
	identity *identity
	leaf     *leaf
	roots    *roots

	mu    sync.Mutex               // guards the following fields
	all   map[endpoint]*tls.Config // each has a cache of sessions of its own
	begun time.Time                // when all was empty last
}

// An endpoint is what a session may be resumed for: a session tells the endpoint who resumes it, and says that the
// endpoint was verified.
type endpoint struct{ address, peer, serverName string }

func (c *current) config(of endpoint, now time.Time) (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.begun) > sessionLife {
		c.all, c.begun = map[endpoint]*tls.Config{}, now
	}
	if made := c.all[of]; made != nil {
		return made, nil
	}
	path, err := canonicalPath(of.peer)
	if err != nil || path == "" || path[0] != '/' {
		return nil, errors.Join(fmt.Errorf("%q is not the path of an identity", of.peer), err)
	}
	most := int(c.identity.store.peers.Load())
	for other := range c.all { // any one: the sessions of endpoints that are in use come back soon
		if len(c.all) < most {
			break
		}
		delete(c.all, other)
	}
	made := c.newConfig(path, of.serverName)
	c.all[of] = made
	return made, nil
}

// newConfig returns a configuration for an endpoint that must prove the ID with this path.
func (c *current) newConfig(path, serverName string) *tls.Config {
	v := &verifier{identity: c.identity, path: path}
	return &tls.Config{
		ServerName: serverName, MinVersion: tls.VersionTLS12, DynamicRecordSizingDisabled: true,
		ClientSessionCache: tls.NewLRUClientSessionCache(1), // all sessions of a Config have the same key
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &c.leaf.pair, nil
		},
		InsecureSkipVerify: true, // VerifyConnection verifies: the certificates of the mesh have no host names
		VerifyConnection:   v.verify,
	}
}
