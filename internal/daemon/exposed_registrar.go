package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/sidecar"
)

// drainPatience limits how long the agent may take to put the registrations into maintenance, or to remove them.
const drainPatience = 2 * time.Second

// A registrar is a sidecar.Registrar with the settings that it was made from.
type registrar struct {
	*sidecar.Registrar
	consul config.Consul
	mesh   config.MeshServer
	client *consul.Client
	cancel context.CancelFunc // nil if the registrar does not run
	former *registrar         // of another agent: its registrations end before this one runs; may be nil
}

// prepareRegistrar returns the registrar for next. It is the one in force if that fits, or if nothing is exposed any
// more: then it withdraws what it has registered. A new registrar does not run yet.
func (e *exposures) prepareRegistrar(next *config.Config, blocks map[string]*exposure) (*registrar, error) {
	now := e.registrar.Load()
	if next.Mesh == nil || len(next.Expose) == 0 || now != nil && now.consul == next.Consul && now.mesh == *next.Mesh {
		return now, nil
	}
	saved := e.d.o.Predecessor.State().Sidecars
	if now != nil {
		saved = now.Export()
	}
	o := agentOptions(next.Consul)
	o.Logger = e.d.log
	client, err := consul.New(o)
	if err != nil {
		return nil, fmt.Errorf("expose: %w", err)
	}
	r := &registrar{consul: next.Consul, mesh: *next.Mesh, client: client}
	r.Registrar = sidecar.New(sidecar.Options{
		Consul: client, Logger: e.d.log, Bind: next.Mesh.Bind,
		Ports:    portsOf(next.Mesh),
		StateDir: next.StateDir, Saved: saved, LeadsBack: e.leadsBack, Report: e.report,
		Instances: func(set []sidecar.Instance) error { return e.serve(r, set) },
	})
	r.Apply(servicesToExpose(blocks))
	return r, nil
}

// agentOptions are for the agent of this host, which has the first address of Consul.
func agentOptions(c config.Consul) consul.Options {
	o := clientOptions(c)
	o.More = nil
	return o
}

func portsOf(m *config.MeshServer) sidecar.Ports {
	return sidecar.Ports{First: uint16(m.Ports.First), Last: uint16(m.Ports.Last)}
}

// instancesOf returns the instances of r that have a listener, or get one.
func (e *exposures) instancesOf(r *registrar) []sidecar.Instance {
	if r == nil {
		return nil
	}
	return r.Instances()
}

// servicesToExpose returns those of blocks that are ready.
func servicesToExpose(blocks map[string]*exposure) (services []sidecar.Service) {
	for name, one := range blocks {
		if one.ready() {
			services = append(services, sidecar.Service{Name: name, Local: one.settings.Local})
		}
	}
	return services
}

// commitRegistrar puts what prepareRegistrar has returned in force. The former registrar leaves its registrations to
// it, or ends them if they are at another agent. It runs at once, or from the call of start on.
func (e *exposures) commitRegistrar(next *registrar) {
	former := e.registrar.Swap(next)
	switch {
	case former == nil || former == next:
	case next != nil && former.consul.Address != next.consul.Address:
		next.former = former
	default:
		former.leave()
	}
	if next == nil {
		return
	}
	e.tell()
	if e.started {
		e.start()
	}
}

// tell tells the registrar in force which services to expose. Of one that is not ready, tell is called again once it
// is.
func (e *exposures) tell() {
	e.registrar.Load().Apply(servicesToExpose(e.inForce))
	for _, one := range e.inForce {
		if !one.ready() {
			e.d.runUntilEnd(func(ctx context.Context) { e.tellOnceReady(ctx, one) })
		}
	}
}

// tellOnceReady waits until x is ready.
func (e *exposures) tellOnceReady(ctx context.Context, x *exposure) {
	late := time.AfterFunc(firstAnswer, func() {
		e.d.log.Warn("exposed service is not registered yet", "service", x.settings.Name, "reason", x.waitsFor())
	})
	defer late.Stop()
	for _, ready := range []<-chan struct{}{x.identity.Ready(), x.intentions.Ready()} {
		if x.ready() {
			break
		}
		select {
		case <-ready:
		case <-x.end:
			return
		case <-ctx.Done():
			return
		}
	}
	if e.d.reloading.take(ctx) != nil {
		return
	}
	defer e.d.reloading.giveBack()
	if r := e.registrar.Load(); r != nil {
		r.Apply(servicesToExpose(e.inForce))
	}
}

// start runs the registrar in force, if it does not run yet. Those of later reloads run at once.
func (e *exposures) start() {
	e.started = true
	r := e.registrar.Load()
	if r == nil || r.cancel != nil {
		return
	}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	e.d.runUntilEnd(func(daemon context.Context) {
		defer context.AfterFunc(daemon, r.cancel)()
		if r.former != nil {
			e.conclude(r.former, "not deregistered", (*sidecar.Registrar).End)
			r.former.leave()
			r.former = nil
		}
		var running sync.WaitGroup
		running.Go(func() { r.client.Run(ctx) })
		r.Run(ctx)
		running.Wait()
		r.client.CloseIdle()
	})
}

// release leaves the registrations to another process.
func (e *exposures) release() {
	if r := e.registrar.Swap(nil); r != nil {
		r.leave()
	}
}

// leave leaves the registrations to another registrar.
func (r *registrar) leave() {
	r.Release()
	if r.cancel != nil {
		r.cancel()
	}
}

// export returns the instances for a registrar of another process.
func (e *exposures) export() []byte {
	if r := e.registrar.Load(); r != nil {
		return r.Export()
	}
	return nil
}

// drain puts the registrations into maintenance, because Lictor accepts no more clients.
func (e *exposures) drain() {
	e.conclude(e.registrar.Load(), "not put into maintenance", (*sidecar.Registrar).Drain)
}

// withdraw removes the registrations.
func (e *exposures) withdraw() {
	e.conclude(e.registrar.Load(), "not deregistered", (*sidecar.Registrar).End)
}

// conclude calls f, which changes the registrations of r at the agent. r may be nil.
func (e *exposures) conclude(r *registrar, failed string, f func(*sidecar.Registrar, context.Context) error) {
	if r == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainPatience)
	defer cancel()
	if err := f(r.Registrar, ctx); err != nil {
		e.d.log.Debug("exposed services: "+failed, "error", err)
	}
}

// report adds an event for what has happened to an exposed instance.
func (e *exposures) report(r sidecar.Report) {
	e.d.events.Add(endpoints.Event{Kind: endpoints.KindExposed, Service: e.nameOf(r.Instance),
		Endpoint: r.Instance.ServiceID, Text: exposedText(r)})
}

// nameOf returns the name of the service of the proxier that serves the instance, or served it.
func (e *exposures) nameOf(i sidecar.Instance) string {
	for _, one := range e.instances() {
		if one.Service == i.Service && one.ServiceID == i.ServiceID {
			return one.name
		}
	}
	return config.ExposedName(i.Service, 1)
}

// exposedText describes what has happened to an exposed instance.
func exposedText(r sidecar.Report) string {
	text := ""
	switch r.What {
	case sidecar.Exposed:
		return fmt.Sprintf("served to the mesh at %s, by %s", r.Instance.Listen, r.Instance.Local)
	case sidecar.Ended:
		return "not served to the mesh any more"
	case sidecar.Refused:
		text = "not served to the mesh"
	case sidecar.Failed:
		text = "the agent takes no registration, and the listener stays open"
	case sidecar.Works:
		text = "served to the mesh without a problem again"
	case sidecar.CutOff:
		text = "the agent cannot connect to the listener, so peers do not use it"
	case sidecar.Lost:
		text = "the agent has lost the instance, and the listener stays open"
	}
	return text + because(r.Err)
}
