// Package mesh holds what Lictor needs to speak with services of Consul's service mesh: the authorities that the mesh
// trusts, certificates for the identities that Lictor acts for, the verification of peers, and the intentions that say
// which services may connect.
//
//	store := mesh.NewStore(mesh.Options{Consul: client, Logger: log})
//	go store.Run(ctx)
//	web := store.Use("web", "billing") // the service "billing" is dialled as "web"
//	defer web.Close()
//	config, err := web.Config("10.0.0.7:20000", "/ns/default/dc/dc1/svc/billing", "")
//
// A service of this host is served to clients of the mesh as follows:
//
//	billing, allowed := store.Use("billing", "billing"), store.Intentions("billing", false)
//	server := billing.Server(mesh.ServerOptions{Admit: func(c mesh.Client) error {
//		if d := allowed.Decide(c); !d.Allowed {
//			return fmt.Errorf("%s may not connect: %v", c.Service, d)
//		}
//		return nil
//	}})
//	config := server.Config()
//
// An identity is the name of a service. Whoever holds the certificate of an identity speaks as that service in the
// mesh. Private keys stay in memory: they are in no log, no file and no answer of the API.
package mesh

import (
	"errors"
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

	// IntentionsChanged is called with a service when other intentions than before are in force for its clients, also
	// when they are known for the first time. It is called by any goroutine, and must not block. nil: no calls.
	IntentionsChanged func(destination string)

	// Saved has what an earlier Store had, as its Export returned it. The new Store uses that until Consul gives the
	// new Store something newer. Empty means nothing. What cannot be read is ignored.
	Saved []byte
}

// ErrNotReady is wrapped by the errors of Identity.Config, and of handshakes with what Server.Config returns, for an
// identity that has no certificate to show, or no authority to verify peers with. Such an error says nothing about the
// peer.
var ErrNotReady = errors.New("the identity is not ready")

// A State is what a Store has.
type State struct {
	TrustDomain string // empty: not known yet
	Roots       []Root
	Identities  []IdentityState // sorted by name
	Err         error           // why the last question for the authorities failed; nil: it did not
	Answered    time.Time       // when the last answer about the authorities came; zero: never
	Failures    int64           // questions for the authorities that failed so far

	Intentions []IntentionsState // sorted by destination
}

// A Root is an authority that the mesh trusts.
type Root struct {
	ID, Name string
	Active   bool      // signs new certificates
	From     time.Time // the authority is valid from From until Expires
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
	Err      error     // why Consul gave no certificate when it was asked last; nil: it gave one
	Answered time.Time // when the last answer about the certificate came; zero: never
	Failures int64     // questions for the certificate that failed so far
}

// A Report says what has happened to an identity, to the intentions with a destination, or to the authorities.
type Report struct {
	What        What
	Identity    string   // empty: the report is not about an identity
	Destination string   // empty: the report is not about intentions
	Services    []string // that use the identity; nil: all
	Expires     time.Time
	Err         error
}

// What says what a Report is about.
type What string

// Kinds of reports.
const (
	Issued   What = "issued"   // a new certificate or a new set of authorities is in use
	Failed   What = "failed"   // Consul gives no certificate, or no intentions; the former ones stay in use
	Works    What = "works"    // Consul gives them again
	Expiring What = "expiring" // the certificate expires soon
	Expired  What = "expired"  // the certificate has expired
)
