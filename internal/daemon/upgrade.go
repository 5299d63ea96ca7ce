package daemon

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/upgrade"
	"github.com/lictor-proxy/lictor/proxy"
)

// Upgrade replaces this process by a new one, which runs the program at the same path with the same arguments. Upgrade
// returns when the new process serves. After an error, this process continues unchanged. If an upgrade is already in
// progress, Upgrade fails at once.
func (d *Daemon) Upgrade(ctx context.Context) (admin.Upgrade, error) {
	ctx, cancel := d.untilTheEnd(ctx)
	defer cancel()
	if err := d.upgrades.Upgrade(ctx); err != nil {
		return admin.Upgrade{}, err
	}
	by := d.upgrades.Successor()
	return admin.Upgrade{PID: by.PID, Version: by.Build.Version, Revision: by.Build.Revision}, nil
}

// tryUpgrade is the Attempt of the daemon's Upgrader. tryUpgrade waits until ctx ends for a reload that is under way.
func (d *Daemon) tryUpgrade(ctx context.Context, commit func(upgrade.Process) error) error {
	if err := d.reloading.take(ctx); err != nil {
		return underWay(err)
	}
	defer d.reloading.giveBack()
	d.log.Info("upgrading", "program", d.o.Program)
	began := time.Now()
	by, err := d.replace(commit)
	if err != nil {
		d.log.Error("not upgraded, this process continues", "error", err)
		d.events.Add(endpoints.Event{Kind: endpoints.KindUpgrade,
			Text: "failed, this process continues: " + err.Error()})
		return err
	}
	d.log.Info("another process has taken over, open connections continue here until they end",
		"pid", by.PID, "version", by.Build.Version, "took", time.Since(began))
	return nil
}

// replace starts a successor and lets it take over.
func (d *Daemon) replace(commit func(upgrade.Process) error) (by upgrade.Process, err error) {
	switch {
	case d.o.Program == "":
		return by, errors.New("this process cannot be replaced: only lictor run can be upgraded")
	case os.Getpid() == 1:
		return by, errors.New("this is process 1, and its container ends with it: start another container instead")
	case d.ending.Err() != nil:
		return by, upgrade.ErrEnding
	}
	sockets, err := d.proxier.Sockets()
	if err != nil {
		return by, err
	}
	defer func() {
		for _, one := range sockets {
			_ = one.File.Close() // the file is a duplicate
		}
	}()
	s, err := upgrade.Launch(d.o.Program, os.Args[1:])
	if err != nil {
		return by, err
	}
	by.PID = s.PID()
	if err = d.replaceBy(s, sockets); err == nil {
		by.Build = s.Build()
		err = commit(by)
	}
	if err != nil {
		d.proxier.Resume()
		s.Kill()
		return by, err
	}
	d.letGo(s)
	return by, nil
}

// replaceBy returns when s serves. After that this process must not serve, unless s is killed.
func (d *Daemon) replaceBy(s *upgrade.Successor, sockets []proxy.Inherited) error {
	offer, err := d.offer(sockets)
	if err != nil {
		return err
	}
	if err := s.Prepare(d.ending, offer); err != nil {
		return d.orEnding(err)
	}
	if d.ending.Err() != nil {
		return upgrade.ErrEnding
	}
	sessions := d.proxier.Suspend()
	own := upgrade.ProcessUses{PID: os.Getpid(), Uses: d.usesWithout(sessions)}
	uses := append([]upgrade.ProcessUses{own}, d.formers.uses()...)
	return d.orEnding(s.Commit(d.ending, sessions, uses, d.ledger.export(d.tallies())))
}

// orEnding returns err, or ErrEnding if this process is about to end.
func (d *Daemon) orEnding(err error) error {
	if err != nil && d.ending.Err() != nil {
		return upgrade.ErrEnding
	}
	return err
}

// offer returns the state and the sockets that the successor needs to become ready.
func (d *Daemon) offer(sockets []proxy.Inherited) (o upgrade.Offer, err error) {
	o = upgrade.Offer{Sockets: sockets, State: upgrade.State{PID: os.Getpid(), Links: d.cycles.Links(),
		Events: d.events.Last(), History: d.events.Export()}}
	if c, ok := d.admin.listener.(syscall.Conn); ok {
		o.Admin, o.Address = c, d.admin.address()
	}
	o.State.Sets, o.State.Drains = d.sets.Export()
	o.State.Drained = drainedIDs(o.State.Drains)
	o.State.Names = d.resolver.Names()
	o.State.Emptied, o.State.Ejected = d.balancer.Emptied(), d.balancer.Ejections()
	o.State.Denials = d.balancer.Denials()
	o.State.Checked = d.checker.Results()
	o.State.Mesh = d.keys.mesh.export()
	o.State.Sidecars, o.State.Exposed = d.exposed.export(), d.exposed.names()
	if c := d.consul.Load(); c != nil {
		o.State.Saved, err = c.Save()
	}
	return o, err
}

// letGo releases everything that s has taken over. letGo cannot fail. At worst s does not receive the last message, and
// logs that.
func (d *Daemon) letGo(s *upgrade.Successor) {
	d.kernel.yield() // the successor's is open already, behind this one
	d.proxier.Release()
	if s.TookAdmin() {
		d.admin.Release(d.admin.listener)
	}
	d.exposed.release()
	d.registered.leave()
	d.registerAs(nil)
	d.service.replacedBy(s.PID())
	d.events.EndLog() // the successor logs what happens to the endpoints
	if c := d.consul.Load(); c != nil {
		c.HoldState(true) // last, because it waits for the disk
	}
	serving, err := s.Release(d.formers.leave(), d.ledger.export(d.tallies()))
	if err != nil {
		d.log.Warn("the successor may not know that this process has released everything", "error", err)
		return
	}
	d.tellUses(serving)
}
