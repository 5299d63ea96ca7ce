package sidecar

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// assign gives ports to the instances that have none.
func (r *Registrar) assign(l *list, now time.Time) (refused []Refusal) {
	for _, i := range r.sorted() {
		if i.Listen.IsValid() || !i.leaving.IsZero() {
			continue
		}
		hint := uint16(0)
		if own := l.own(i.ServiceID); own != nil && own.Port > 0 && own.Port < 1<<16 {
			hint = uint16(own.Port)
		}
		var last error // of the last probe that failed
		taken := func(n uint16) bool {
			if r.assigned(l, i, n) || errors.Is(last, syscall.EADDRNOTAVAIL) { // no port of this address is free
				return true
			}
			err := probe(netip.AddrPortFrom(r.o.Bind, n))
			if err != nil {
				last = err
			}
			return err != nil
		}
		n, ok := r.run.memory.assign(i.ServiceID, hint, taken, now)
		if !ok {
			err := fmt.Errorf("%w: all of %s are taken", ErrNoPort, r.o.Ports)
			if last != nil {
				err = fmt.Errorf("%w: %w", ErrNoPort, last)
			}
			refused = append(refused, Refusal{Service: i.Service, ServiceID: i.ServiceID, Err: err})
			continue
		}
		i.Listen = netip.AddrPortFrom(r.o.Bind, n)
		r.run.dirty = true
	}
	return refused
}

// assigned reports whether a port belongs to another instance, or to a sidecar of another program.
func (r *Registrar) assigned(l *list, not *instance, n uint16) bool {
	for _, other := range r.run.known {
		if other != not && other.Listen.Port() == n {
			return true
		}
	}
	for _, s := range l.services {
		if s.Port == int(n) && !l.owns(s) && (s.Address == "" || s.Address == r.o.Bind.String()) {
			return true
		}
	}
	return false
}

// probe returns nil if a listener can be opened at an address.
func probe(at netip.AddrPort) error {
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return err
	}
	return l.Close()
}

// open has listeners opened for the instances with ports, and closed for those that have left.
func (r *Registrar) open(now time.Time) {
	var next []Instance
	for _, i := range r.sorted() {
		if i.Listen.IsValid() && (i.leaving.IsZero() || now.Sub(i.leaving) < linger) {
			next = append(next, i.Instance)
		}
	}
	if slices.Equal(next, r.run.accepted) {
		r.run.retryAt = time.Time{}
		return
	}
	if now.Before(r.run.retryAt) {
		return
	}
	if err := r.o.Instances(slices.Clone(next)); err != nil {
		level := hclog.Debug // once for a series
		if r.run.retryAt.IsZero() {
			level = hclog.Warn
		}
		r.log.Log(level, "listeners of exposed instances cannot be changed, lictor tries again", "error", err)
		r.run.retryAt = now.Add(r.run.failures.Pause(now, interval, mostPause))
		r.freePorts()
		return
	}
	r.run.failures.Reset()
	r.run.accepted, r.run.retryAt = next, time.Time{}
}

// freePorts takes the ports away from instances without a listener, if another program uses them now.
func (r *Registrar) freePorts() {
	for _, i := range r.run.known {
		if i.Listen.IsValid() && !r.serves(i) && probe(i.Listen) != nil {
			i.Listen = netip.AddrPort{}
		}
	}
}

// serves reports whether an instance has a listener.
func (r *Registrar) serves(i *instance) bool {
	return slices.ContainsFunc(r.run.accepted, func(a Instance) bool { return a.ID == i.ID && a.Listen == i.Listen })
}
