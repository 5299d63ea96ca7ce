package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/mesh"
	"github.com/lictor-proxy/lictor/internal/sidecar"
	"github.com/lictor-proxy/lictor/proxy"
)

// maxShownIdentities is how many connected identities of an instance the API shows.
const maxShownIdentities = 20

// shown returns the instance as a service that the API shows.
func (x *exposed) shown() admin.Configured {
	return admin.Configured{Name: x.name, Protocol: config.TCP.String(),
		Source:     fmt.Sprintf("%s, exposed to the mesh as %q", x.ServiceID, x.Service),
		Permissive: x.of.settings.Intentions == config.IntentionsPermissive}
}

// show returns the exposed services as the API shows them, sorted by name. The argument state is that of the mesh.
func (e *exposures) show(state *mesh.State) []admin.Exposed {
	all := []admin.Exposed{}
	blocks := e.shown.Load()
	if blocks == nil {
		return all
	}
	var registered sidecar.State
	if r := e.registrar.Load(); r != nil {
		registered = r.State()
	}
	counts := map[string]proxy.Stats{}
	for _, s := range e.d.proxier.Snapshot() {
		counts[s.Service] = s
	}
	for _, block := range *blocks {
		name := block.settings.Name
		one := admin.Exposed{Service: name, Permissive: block.settings.Intentions == config.IntentionsPermissive,
			Instances: []admin.ExposedInstance{}, Intentions: intentionsOf(state, name)}
		for _, x := range e.instances() {
			if x.Service == name {
				one.Instances = append(one.Instances, e.showInstance(&x, &registered, counts[x.name]))
			}
		}
		for _, r := range registered.Refused {
			if r.Service == name {
				one.Refused = append(one.Refused, admin.UnexposedService{ServiceID: r.ServiceID, Reason: r.Err.Error()})
			}
		}
		one.State, one.Reason = exposedState(&one, block, &registered)
		all = append(all, one)
	}
	return all
}

// showInstance returns an instance as the API shows it.
func (e *exposures) showInstance(x *exposed, state *sidecar.State, s proxy.Stats) admin.ExposedInstance {
	one := admin.ExposedInstance{Name: x.name, ServiceID: x.ServiceID, Registration: x.ID, Listen: x.Listen.String(),
		Local: x.Local.String(), Connections: s.ConnectionsActive, Denied: s.RefusedBy[proxy.RefusedIntention],
		Ended: s.EndedIntention}
	for _, i := range state.Instances {
		if i.ID != x.ID {
			continue
		}
		one.Registered, one.Error = since(i.Registered), textOf(i.Err)
		switch {
		case !i.Lost.IsZero():
			one.Error = "the agent has lost the instance"
		case i.CutOff != "" && i.Err == nil:
			one.Error = "the agent cannot connect to the listener, so peers do not use it: " + i.CutOff
		}
	}
	some, n := e.d.proxier.Identities(x.name, maxShownIdentities)
	for _, c := range some {
		one.Clients = append(one.Clients, admin.ExposedClient(c))
	}
	one.ClientsShort = n > len(some)
	return one
}

// exposedState returns the state of an exposed service, and the reason for it.
func exposedState(one *admin.Exposed, x *exposure, state *sidecar.State) (name, reason string) {
	var bad []string
	for _, i := range one.Instances {
		switch {
		case i.Error != "":
			bad = append(bad, i.ServiceID+": "+i.Error)
		case i.Registered == nil:
			bad = append(bad, i.ServiceID+": not registered yet")
		}
	}
	for _, r := range one.Refused {
		bad = append(bad, strings.TrimPrefix(r.ServiceID+": "+r.Reason, ": "))
	}
	switch waits := x.waitsFor(); {
	case len(one.Instances) == 0 && waits != "":
		return admin.ExposedWaiting, waits
	case len(one.Instances) == 0:
		return admin.ExposedNone, cmp.Or(strings.Join(bad, "; "), textOf(state.Err), "the agent has not answered yet")
	case len(bad) > 0:
		return admin.ExposedFailing, strings.Join(bad, "; ")
	case one.Intentions.Error != "" && one.Intentions.Answered != nil && silentFor(one.Intentions.Answered):
		return admin.ExposedFailing, "Consul does not give the intentions, the last ones stay in force: " +
			one.Intentions.Error
	}
	return admin.ExposedFine, ""
}

func silentFor(t *time.Time) bool { return time.Since(*t) > failingAfter }

// intentionsOf returns the intentions of a destination as the API shows them.
func intentionsOf(state *mesh.State, destination string) admin.Intentions {
	shown := admin.Intentions{List: []admin.Intention{}}
	i := slices.IndexFunc(state.Intentions, func(s mesh.IntentionsState) bool { return s.Destination == destination })
	if i < 0 {
		return shown
	}
	s := &state.Intentions[i]
	shown.Known, shown.Error, shown.Answered, shown.Failures = s.Known, textOf(s.Err), since(s.Answered), s.Failures
	if s.Known {
		shown.Default = actionOf(s.DefaultAllow)
	}
	for _, one := range s.Intentions {
		shown.List = append(shown.List, admin.Intention{Source: one.Source, Destination: one.Destination,
			Action: actionOf(one.Allow), L7: one.L7, Peer: one.SourcePeer, Precedence: one.Precedence})
	}
	return shown
}

func actionOf(allow bool) string {
	if allow {
		return "allow"
	}
	return "deny"
}

// explainAccess says whether a service of the mesh may use another one, and names the services of the configuration
// that dial the destination with the identity of the source.
func (d *Daemon) explainAccess(
	ctx context.Context, source, destination string,
) (e admin.ExplainedAccess, services []string) {
	e = admin.ExplainedAccess{Source: source, Destination: destination}
	cfg := d.cfg.Load()
	for i := range cfg.Services {
		s := &cfg.Services[i]
		if s.Mesh != nil && s.Mesh.As == source && s.Consul.Service == destination {
			services = append(services, s.Name)
		}
	}
	namespace := namespaceOf(cfg.Consul)
	client := mesh.Client{Partition: cmp.Or(cfg.Consul.Partition, "default"), Namespace: namespace, Service: source}
	if blocks := d.exposed.shown.Load(); blocks != nil {
		for _, x := range *blocks {
			if x.settings.Name == destination {
				e.Known, e.From = true, "this Lictor, which exposes it"
				e.Allowed, e.By = x.decide(client)
				return e, services
			}
		}
	}
	decision, err := askDecision(ctx, cfg.Consul, client, destination)
	if err != nil {
		e.Error = err.Error()
		return e, services
	}
	e.Known, e.Allowed, e.By, e.From = true, decision.Allowed, decision.String(), "Consul, asked now"
	return e, services
}

// decide returns whether a client of the mesh may use the service, and why.
func (x *exposure) decide(c mesh.Client) (allowed bool, by string) {
	if !x.lists(c) {
		return false, "allow_identities does not have it"
	}
	d := x.intentions.Decide(c)
	return d.Allowed, d.String()
}

// askDecision asks Consul for the intentions of a destination that this host does not expose.
func askDecision(ctx context.Context, c config.Consul, from mesh.Client, destination string) (mesh.Decision, error) {
	client, err := consul.New(clientOptions(c))
	if err != nil {
		return mesh.Decision{}, err
	}
	defer client.CloseIdle()
	client.Settle(ctx, "")
	store := mesh.NewStore(mesh.Options{Consul: client})
	intentions := store.Intentions(destination, false)
	defer intentions.Close()
	store.AskOnce(ctx)
	state := store.State()
	if i := intentionsOf(&state, destination); !i.Known {
		return mesh.Decision{}, errors.New(cmp.Or(i.Error, "Consul does not answer"))
	}
	return intentions.Decide(from), nil
}
