package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// An Exposed is a service of this host that is served to the mesh: an expose block of the configuration.
type Exposed struct {
	Service    string `json:"service"`    // its name in Consul
	Permissive bool   `json:"permissive"` // clients without a certificate are served in plain text too
	State      string `json:"state"`      // one of the constants below
	Reason     string `json:"reason,omitempty"`

	Instances  []ExposedInstance  `json:"instances"`         // those with a listener
	Refused    []UnexposedService `json:"refused,omitempty"` // those that are not exposed
	Intentions Intentions         `json:"intentions"`
}

// The states of an exposed service.
const (
	ExposedFine    = "fine"    // every instance at the agent is served and registered
	ExposedFailing = "failing" // some instances are served, and something needs attention
	ExposedWaiting = "waiting" // there is no certificate yet, or it is not known who may come
	ExposedNone    = "none"    // no instance is served
)

// An ExposedInstance is an instance of this host that is served to the mesh.
type ExposedInstance struct {
	Name         string     `json:"name"` // of the service in other answers, such as "mesh:web"
	ServiceID    string     `json:"service_id"`
	Registration string     `json:"registration"` // ID of Lictor's registration
	Listen       string     `json:"listen"`
	Local        string     `json:"local"`
	Registered   *time.Time `json:"registered,omitempty"` // when the agent last accepted the registration
	Error        string     `json:"error,omitempty"`      // why the agent does not have it, or peers do not use it

	Connections int64 `json:"connections"` // open ones
	Denied      int64 `json:"denied"`      // clients refused because of their identity, so far
	Ended       int64 `json:"ended"`       // connections that a changed intention has ended, so far

	Clients      []ExposedClient `json:"clients,omitempty"`       // identities with open connections, the most first
	ClientsShort bool            `json:"clients_short,omitempty"` // there are more identities
}

// An ExposedClient is an identity that is connected.
type ExposedClient struct {
	Identity    string `json:"identity"`
	Connections int    `json:"connections"`
}

// An UnexposedService is an instance at the agent that is not exposed.
type UnexposedService struct {
	ServiceID string `json:"service_id,omitempty"` // empty: there is no instance
	Reason    string `json:"reason"`
}

// Intentions are those with an exposed service as their destination.
type Intentions struct {
	Known    bool        `json:"known"` // Consul has said what they are
	Default  string      `json:"default,omitempty"`
	List     []Intention `json:"list"` // the first that fits a client decides
	Error    string      `json:"error,omitempty"`
	Answered *time.Time  `json:"answered,omitempty"`
	Failures int64       `json:"failures"`
}

// An Intention says whether clients may connect.
type Intention struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Action      string `json:"action"`         // "allow" or "deny"
	L7          bool   `json:"l7,omitempty"`   // it has permissions for HTTP, so it denies
	Peer        string `json:"peer,omitempty"` // the source is in this peered cluster, so it fits no client
	Precedence  int    `json:"precedence"`
}

// The kinds of reasons that are about exposed services.
const (
	KindPermissive = "permissive" // of a service: clients without a certificate are served
	KindExposed    = "exposed"    // of the process: services of this host are not served to the mesh as they should be
)

// unexposed returns the reason for services that are not served as they should be. It returns false if all are.
func unexposed(all []Exposed) (r Reason, are bool) {
	const most = 3
	var texts []string
	n := 0
	for i := range all {
		if one := &all[i]; one.State != ExposedFine {
			if n++; n <= most {
				texts = append(texts, fmt.Sprintf("%s (%s)", one.Service, one.Reason))
			}
		}
	}
	text := "not served to the mesh as configured: " + strings.Join(texts, ", ")
	if n > most {
		text += fmt.Sprintf(" and %d more", n-most)
	}
	return Reason{Kind: KindExposed, Text: text}, n > 0
}

// permissive returns the reason for a service that serves clients without a certificate.
func permissive() Reason {
	return Reason{Kind: KindPermissive,
		Text: "permissive: clients without a certificate of the mesh are served in plain text"}
}

// An ExplainedAccess says whether one service of the mesh may use another, and how it would come there.
type ExplainedAccess struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`

	Known   bool   `json:"known"` // false: Consul does not say, see Error
	Allowed bool   `json:"allowed"`
	By      string `json:"by,omitempty"`    // what decides, in words
	From    string `json:"from,omitempty"`  // who has said so
	Error   string `json:"error,omitempty"` // why it is not known

	Routes     []AccessRoute `json:"routes"`            // the services that dial the destination as the source
	Exposed    *Exposed      `json:"exposed,omitempty"` // the destination, if this host exposes it
	Identities []Identity    `json:"identities"`        // those of both, as far as this host uses them
}

// An AccessRoute is a service of the configuration that dials a service of the mesh.
type AccessRoute struct {
	Service   string     `json:"service"`
	Listeners []string   `json:"listeners"`
	State     string     `json:"state"`
	Reasons   []Reason   `json:"reasons,omitempty"`
	Endpoints []Endpoint `json:"endpoints"`
}

// getAccess explains whether one service may use another.
func (s *Server) getAccess(w http.ResponseWriter, r *http.Request) {
	source, destination := r.FormValue("source"), r.FormValue("destination")
	switch {
	case source == "" || destination == "":
		refuse(w, http.StatusBadRequest, errors.New("write source=SERVICE&destination=SERVICE"))
		return
	case s.o.State.Access == nil:
		refuse(w, http.StatusNotImplemented, errors.New("this lictor does not know the mesh"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	e, services := s.o.State.Access(ctx, source, destination)
	e.Routes = []AccessRoute{}
	for _, name := range services {
		if one, is := s.o.State.service(name); is {
			e.Routes = append(e.Routes, AccessRoute{one.Name, one.Listeners, one.State, one.Reasons, one.Endpoints})
		}
	}
	m := s.o.State.mesh()
	e.Identities = []Identity{}
	for i := range m.Identities {
		if name := m.Identities[i].Name; name == source || name == destination {
			e.Identities = append(e.Identities, m.Identities[i])
		}
	}
	for i := range m.Exposed {
		if m.Exposed[i].Service == destination {
			e.Exposed = &m.Exposed[i]
		}
	}
	reply(w, e)
}

// exposed sends the metrics of exposed services. There are as many as the configuration has.
func (e *exposition) exposed(all []Exposed) {
	for i := range all {
		one := &all[i]
		for _, state := range []string{ExposedFine, ExposedFailing, ExposedWaiting, ExposedNone} {
			e.gauge("lictor_mesh_exposed_state",
				"Whether an exposed service is in this state, 0 or 1: fine, failing, waiting or none.",
				truth(one.State == state), "exposed", one.Service, "state", state)
		}
		e.gauge("lictor_mesh_exposed_instances", "Instances of this host that are served to the mesh.",
			float64(len(one.Instances)), "exposed", one.Service)
		e.gauge("lictor_mesh_permissive", "Whether clients without a certificate are served in plain text, 0 or 1.",
			truth(one.Permissive), "exposed", one.Service)
		e.counter("lictor_mesh_intentions_failures_total", "Questions for intentions that failed.",
			one.Intentions.Failures, "exposed", one.Service)
		if one.Intentions.Answered != nil {
			e.gauge("lictor_mesh_intentions_last_success_timestamp_seconds",
				"When Consul answered last about the intentions of an exposed service.",
				float64(one.Intentions.Answered.Unix()), "exposed", one.Service)
		}
	}
}
