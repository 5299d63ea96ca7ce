package admin

import (
	"fmt"
	"net/http"
	"time"
)

// A Mesh is what Lictor has of Consul's service mesh.
type Mesh struct {
	TrustDomain string     `json:"trust_domain,omitempty"`
	Error       string     `json:"error,omitempty"`    // why the last question for the authorities failed
	Answered    *time.Time `json:"answered,omitempty"` // when the last answer came
	Failures    int64      `json:"failures"`           // questions for the authorities that failed so far
	Roots       []MeshRoot `json:"roots"`
	Identities  []Identity `json:"identities"` // sorted by name
	Exposed     []Exposed  `json:"exposed"`    // sorted by service
}

// A MeshRoot is an authority that the mesh trusts.
type MeshRoot struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Active  bool      `json:"active"` // signs new certificates
	Expires time.Time `json:"expires"`
}

// An Identity is the name of a service in Consul, as which Lictor dials the endpoints of the services in Services.
type Identity struct {
	Name     string     `json:"name"`
	State    string     `json:"state"` // one of the constants below
	Error    string     `json:"error,omitempty"`
	SPIFFEID string     `json:"spiffe_id,omitempty"`
	Serial   string     `json:"serial,omitempty"`
	From     *time.Time `json:"from,omitempty"`
	Expires  *time.Time `json:"expires,omitempty"`
	Received *time.Time `json:"received,omitempty"`
	Answered *time.Time `json:"answered,omitempty"` // when the last answer about the certificate came
	Failures int64      `json:"failures"`           // questions for the certificate that failed so far
	Services []string   `json:"services"`           // sorted
}

// The states of an identity.
const (
	IdentityFine     = "fine"
	IdentityFailing  = "failing"  // Consul gives no new certificate or authorities; the former ones are in use
	IdentityExpiring = "expiring" // the certificate should have been renewed by now
	IdentityWaiting  = "waiting"  // there is no certificate, or no authority, yet: clients are refused
	IdentityExpired  = "expired"  // the certificate is not valid any more: endpoints refuse it
)

// KindIdentity is the kind of a reason for a service in StateRefusing: it has no valid certificate for the mesh.
const KindIdentity = "identity"

// Usable reports whether endpoints can be dialled with the identity.
func (i *Identity) Usable() bool { return i.State != IdentityWaiting && i.State != IdentityExpired }

// Trouble says in words what is wrong with i. It is empty if i is fine.
func (i *Identity) Trouble() string {
	text := ""
	switch i.State {
	case IdentityFine:
		return ""
	case IdentityWaiting:
		text = fmt.Sprintf("the identity %q has no certificate of the mesh yet", i.Name)
	case IdentityExpired:
		text = fmt.Sprintf("the certificate of the identity %q has expired%s", i.Name, at(i.Expires))
	case IdentityExpiring:
		text = fmt.Sprintf("the certificate of the identity %q expires%s", i.Name, at(i.Expires))
	default:
		text = fmt.Sprintf("Consul gives no new certificate for the identity %q, the former one stays in use", i.Name)
	}
	if i.Error != "" {
		text += ": " + i.Error
	}
	return text
}

// at returns " at" and the time, or "" without a time.
func at(t *time.Time) string {
	if t == nil {
		return ""
	}
	return " at " + t.UTC().Format(time.RFC3339)
}

// mesh returns what Lictor has of the mesh.
func (s *State) mesh() Mesh {
	if s.Mesh == nil {
		return Mesh{Roots: []MeshRoot{}, Identities: []Identity{}, Exposed: []Exposed{}}
	}
	return s.Mesh()
}

// attach adds to services, which are by name, what m has of them.
func (m *Mesh) attach(services map[string]*Service) {
	for i := range m.Identities {
		for _, name := range m.Identities[i].Services {
			if one := services[name]; one != nil {
				one.Identity = &m.Identities[i]
			}
		}
	}
	for i := range m.Exposed {
		instances := m.Exposed[i].Instances
		for k := range instances {
			if one := services[instances[k].Name]; one != nil {
				one.Exposed = &instances[k]
			}
		}
	}
}

// MeshAnswer is the response body of /v1/mesh.
type MeshAnswer struct {
	Now time.Time `json:"now"`
	Mesh
}

func (s *Server) getMesh(w http.ResponseWriter, _ *http.Request) {
	reply(w, MeshAnswer{time.Now(), s.o.State.mesh()})
}

// maxRootSeries limits the number of authorities with series of their own. Consul has one, or two while it changes.
const maxRootSeries = 16

// mesh sends the metrics of the mesh. There are as many identities as the configuration has, or fewer.
func (e *exposition) mesh(m *Mesh) {
	for _, r := range m.Roots[:min(len(m.Roots), maxRootSeries)] {
		e.gauge("lictor_mesh_root_expiry_timestamp_seconds", "When the authorities of the service mesh expire.",
			float64(r.Expires.Unix()), "root", r.ID)
	}
	if len(m.Identities) > 0 {
		e.meshAnswers("", m.Answered, m.Failures)
	}
	for i := range m.Identities {
		one := &m.Identities[i]
		e.meshAnswers(one.Name, one.Answered, one.Failures)
		for _, state := range []string{
			IdentityFine, IdentityFailing, IdentityExpiring, IdentityWaiting, IdentityExpired,
		} {
			e.gauge("lictor_mesh_identity_state",
				"Whether an identity is in this state, 0 or 1: fine, failing, expiring, waiting or expired.",
				truth(one.State == state), "identity", one.Name, "state", state)
		}
		if one.Expires == nil || one.Received == nil {
			continue
		}
		e.gauge("lictor_mesh_certificate_expiry_timestamp_seconds",
			"When the certificate of an identity in the service mesh expires.", float64(one.Expires.Unix()),
			"identity", one.Name)
		e.gauge("lictor_mesh_certificate_received_timestamp_seconds",
			"When the certificate of an identity in the service mesh came from Consul.",
			float64(one.Received.Unix()), "identity", one.Name)
	}
	e.exposed(m.Exposed)
}

// meshAnswers sends the metrics of the questions for a certificate, or for the authorities if identity is empty.
func (e *exposition) meshAnswers(identity string, answered *time.Time, failures int64) {
	e.counter("lictor_mesh_query_failures_total", "Questions for a certificate or the authorities that failed.",
		failures, "identity", identity)
	if answered != nil {
		e.gauge("lictor_mesh_last_success_timestamp_seconds",
			"When Consul answered last about a certificate or the authorities.", float64(answered.Unix()),
			"identity", identity)
	}
}
