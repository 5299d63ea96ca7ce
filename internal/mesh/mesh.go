// Package mesh holds what Lictor needs to speak with services of Consul's service mesh: the authorities that the mesh
// trusts, certificates for the identities that Lictor acts for, and the verification of peers.
//
// An identity is the name of a service. Whoever holds the certificate of an identity speaks as that service in the
// mesh. Private keys stay in memory: they are in no log, no file and no answer of the API.
package mesh

import (
	"crypto/tls"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// Options configure a Store.
type Options struct {
	// Consul is the client of the agent that issues certificates.
	Consul *consul.Client

	// Logger receives messages for operators, which never contain keys. A nil Logger means no log.
	Logger hclog.Logger

	// Report is called for each Report, by any goroutine, and must not block. A nil Report means no calls.
	Report func(Report)
}

// A Store follows the authorities of the mesh, and keeps one certificate for each identity, however many services use
// it. A Store is safe for concurrent use.
type Store struct{ o Options }

// NewStore returns a Store. Without a call of Run it never gets a certificate.
func NewStore(o Options) *Store { return &Store{o: o} }

// Use returns the identity called name, for service. The Store follows the identity's certificate until each caller has
// called Close.
func (s *Store) Use(name, service string) *Identity { return &Identity{} }

// State returns the authorities and identities of the Store.
func (s *Store) State() State { return State{} }

// An Identity is an identity in use by one service.
type Identity struct{}

// Config returns the configuration for the next handshake with the endpoint at address. The endpoint must prove that it
// is peer, the path of a SPIFFE ID such as "/ns/default/dc/dc1/svc/billing", in the trust domain of the Store.
// ServerName is the name to ask for (SNI); empty: none. Config returns the same configuration until the certificate or
// the authorities change, so that sessions can be resumed, and never blocks. It returns ErrNotReady while there is no
// certificate or no authority. The result must not be changed.
func (i *Identity) Config(address, peer, serverName string) (*tls.Config, error) { return nil, nil }

// Close gives the identity back.
func (i *Identity) Close() {}

// A State is what a Store has.
type State struct {
	TrustDomain string // empty: not known yet
	Roots       []Root
	Identities  []IdentityState // sorted by name
	Err         error           // why the last question for the authorities failed; nil: it did not
}

// A Root is an authority that the mesh trusts.
type Root struct {
	ID, Name string
	Active   bool // signs new certificates
	Expires  time.Time
}

// An IdentityState describes an identity.
type IdentityState struct {
	Name     string
	URI      string    // the SPIFFE ID; empty: no certificate yet
	Serial   string    // of the certificate
	From     time.Time // the certificate is valid from From until Expires
	Expires  time.Time
	Received time.Time // when the certificate came; zero: there is none
	Services []string  // the services that use the identity, sorted
	Err      error     // why the last question for a certificate failed; nil: it did not
}

// A Report says what has happened to an identity, or to the authorities.
type Report struct {
	What     What
	Identity string   // empty: the authorities
	Services []string // that use the identity; nil: all
	Expires  time.Time
	Err      error
}

// What says what a Report is about.
type What string

// Kinds of reports.
const (
	Issued   What = "issued"   // a new certificate or a new set of authorities is in use
	Failed   What = "failed"   // Consul gives no certificate; the former one stays in use
	Works    What = "works"    // Consul gives certificates again
	Expiring What = "expiring" // the certificate expires soon
	Expired  What = "expired"  // the certificate has expired
)
