package main

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

// This file has the loads over both ends of a mesh: a proxy takes clients without TLS into the mesh, and another one
// takes them out of it, to an instance without TLS. What is measured is the cost of both. Each target has an agent of
// its own, because a Lictor that serves its host's services to the mesh is the only one at its agent.

// An inbound is what the proxy at the instance's end is to serve.
type inbound struct {
	Listen netip.AddrPort // where the proxy speaks the TLS of the mesh
	Local  string         // the instance
	TLS    tlsFiles       // the certificate of the service
}

// startHops starts a target at both ends of a new mesh.
func (b *bench) startHops(t *target) (*instance, error) {
	p, err := b.plan(1, service{Name: meshService, Protocol: "tcp"})
	if err != nil {
		return nil, err
	}
	at, err := b.ports.next()
	if err != nil {
		return nil, err
	}
	m, err := startMesh(b.guard.dir)
	if err != nil {
		return nil, err
	}
	s := &p.Services[0]
	p.Mesh, p.Inbound = m.files, &inbound{Listen: at, Local: s.Endpoints[0], TLS: m.server}
	p.Pairs = 6000
	s.Mesh, s.Endpoints = true, []string{at.String()}
	if err = m.registerLocal(p.Inbound, t.registered); err == nil {
		var i *instance
		if i, err = b.launch(t, p); err == nil {
			i.mesh = m
			return i, nil
		}
	}
	m.stop()
	return nil, err
}

// registerLocal registers the instance, and also its sidecar unless the proxy does that itself.
func (m *mesh) registerLocal(in *inbound, sidecar bool) error {
	client, err := m.agent.Client()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(in.Local)
	if err != nil {
		return err
	}
	local, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	err = client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: meshService, Port: local})
	if !sidecar {
		return err
	}
	return errors.Join(err, client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Kind: api.ServiceKindConnectProxy, Name: meshService + "-sidecar", Address: "127.0.0.1",
		Port:  int(in.Listen.Port()),
		Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: meshService},
	}))
}

// hopsIdle returns a load of n idle connections over both ends, each after 20 KB each way. A pair is one at one end.
func hopsIdle(n int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		i, err := b.startHops(t)
		if err != nil {
			return nil, err
		}
		defer b.stop(i)
		const ends = 2
		return b.idleUsed(i, n, ends, func() (net.Conn, error) { return dialPlain(i.addrs()[0]) })
	}
}

// dialPlain opens a connection without TLS.
func dialPlain(addr netip.AddrPort) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr.String(), answerTimeout)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(measureLimit))
	}
	return c, err
}
