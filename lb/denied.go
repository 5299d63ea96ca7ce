package lb

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/allowance"
)

// ErrDenied is wrapped by the error of a connection that the endpoint has denied: it does not accept the certificate of
// this host, or not what that certificate says who is calling. The endpoint itself is well.
var ErrDenied = errors.New("denied by the destination")

// denyingAlerts are the alerts by which a server refuses the certificate of its client (RFC 8446, section 6.2).
// crypto/tls says which one came only by its text. An alert such as handshake_failure has other causes too.
var denyingAlerts = textsOf(
	42,  // bad_certificate
	43,  // unsupported_certificate
	44,  // certificate_revoked
	45,  // certificate_expired
	46,  // certificate_unknown
	48,  // unknown_ca
	49,  // access_denied
	116, // certificate_required
)

func textsOf(alerts ...tls.AlertError) (texts []string) {
	for _, a := range alerts {
		texts = append(texts, a.Error())
	}
	return texts
}

// Denial returns an error that wraps ErrDenied if err is an alert by which a server refuses its client's certificate.
// Otherwise Denial returns nil. Under TLS 1.2 the handshake fails with such an err. Under TLS 1.3 the handshake
// succeeds, and a later read fails.
func Denial(err error) error {
	var alert *net.OpError
	if errors.As(err, &alert) && alert.Op == "remote error" && slices.Contains(denyingAlerts, alert.Err.Error()) {
		return fmt.Errorf("%w: %w", ErrDenied, alert)
	}
	return nil
}

// An Unserved counts the connections that an endpoint has not served, since it last answered one.
type Unserved struct {
	Connections int64 // zero: none; then the other fields are empty
	Since, Last time.Time
	Why         string // about the last connection; may be empty
}

// A DenialChange says that an endpoint of a service has begun to deny connections, or has answered one again.
type DenialChange struct {
	Service, Endpoint string // Endpoint is the endpoint's ID
	Denied            bool
	Why               string // if Denied: the reason that the endpoint gave
}

// At most changesAtOnce changes of an endpoint are told at once, and then one in each changeEvery.
const (
	changesAtOnce = 4
	changeEvery   = time.Minute
)

// NotifyDenials sets the callback for denials. The balancer calls f at the first connection that an endpoint denies,
// and when the endpoint answers again. An endpoint that changes often is told of less often. As with NotifyHealth, f
// must not block. Set the callback before the first update.
func (b *RoundRobin) NotifyDenials(f func(DenialChange)) { b.registry.onDenial = f }

// An unserved is what a usage knows of the connections that its endpoint has not served lately.
type unserved struct {
	mu         sync.Mutex // guards the following fields
	denied     Unserved
	unanswered Unserved
	changes    allowance.Allowance
	told       bool // the callback knows that the endpoint denies
}

func (u *Unserved) add(now time.Time, why string) {
	if u.Connections == 0 {
		u.Since = now
	}
	u.Connections++
	u.Last, u.Why = now, why
}

// Denied reports to the balancer that the endpoint has denied the connection because of why, see Denial. A denial is
// neither a failure of the endpoint nor a success: another use may try an ejected endpoint.
func (m *Member) Denied(why error) {
	m.health.undecided(m.trial)
	u := m.notServed()
	now, reason := time.Now(), strings.TrimPrefix(why.Error(), ErrDenied.Error()+": ")
	u.mu.Lock()
	u.denied.add(now, reason)
	tell := u.denied.Connections == 1 && u.changes.Take(now, changesAtOnce, changeEvery)
	u.told = u.told || tell
	u.mu.Unlock()
	if tell {
		m.tell(DenialChange{Denied: true, Why: reason})
	}
}

// Unanswered reports to the balancer that the endpoint has ended the connection before it sent anything, and without a
// reason. That is no success of the endpoint. If it is a failure, report that too, and first.
func (m *Member) Unanswered() {
	m.health.undecided(m.trial)
	u := m.notServed()
	u.mu.Lock()
	u.unanswered.add(time.Now(), "")
	u.mu.Unlock()
}

// answered notes that the endpoint has answered a connection.
func (u *unserved) answered(m *Member) {
	u.mu.Lock()
	u.denied, u.unanswered = Unserved{}, Unserved{}
	tell := u.told
	u.told = false
	u.mu.Unlock()
	if tell {
		m.tell(DenialChange{})
	}
}

// notServed returns what the usage knows of connections that were not served.
func (u *usage) notServed() *unserved {
	if known := u.unserved.Load(); known != nil {
		return known
	}
	u.unserved.CompareAndSwap(nil, &unserved{})
	return u.unserved.Load()
}

// tell calls the callback for denials.
func (m *Member) tell(c DenialChange) {
	if f := m.group.registry.onDenial; f != nil {
		c.Service, c.Endpoint = m.group.name, m.ID
		f(c)
	}
}
