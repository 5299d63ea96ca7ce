package daemon

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/upgrade"
	"github.com/lictor-proxy/lictor/proxy"
)

// Upgrade has another process take this one's place: of the program that is at the same path now, with the same
// arguments. It returns when that serves. After an error everything is as it was.
func (d *Daemon) Upgrade(ctx context.Context) (admin.Upgrade, error) {
	ctx, cancel := d.untilTheEnd(ctx)
	defer cancel()
	if err := d.upgrading.take(ctx); err != nil {
		return admin.Upgrade{}, underWay(err)
	}
	defer d.upgrading.giveBack()
	if err := d.reloading.take(ctx); err != nil {
		return admin.Upgrade{}, underWay(err)
	}
	defer d.reloading.giveBack()
	if t := d.serving.successor(); t != nil {
		return admin.Upgrade{}, t.refusal()
	}
	d.log.Info("upgrading", "program", d.o.Program)
	began := time.Now()
	if err := d.upgrade(); err != nil {
		d.log.Error("not upgraded, this process goes on", "error", err)
		d.events.Add(admin.Event{Kind: admin.KindUpgrade, Text: "failed, this process goes on: " + err.Error()})
		return admin.Upgrade{}, err
	}
	t := d.serving.successor()
	d.log.Info("another process has taken over, connections go on here until they end",
		"pid", t.pid, "version", t.build.Version, "took", time.Since(began))
	close(d.replaced)
	return admin.Upgrade{PID: t.pid, Version: t.build.Version, Revision: t.build.Revision}, nil
}

func (d *Daemon) upgrade() error {
	switch {
	case d.o.Program == "":
		return errors.New("this process cannot be replaced: only lictor run can")
	case os.Getpid() == 1:
		return errors.New("this is process 1, with which its container ends: start another container instead")
	case d.ending.Err() != nil:
		return errEnding
	}
	sockets, err := d.proxier.Sockets()
	if err != nil {
		return err
	}
	s, err := upgrade.Launch(d.o.Program, os.Args[1:])
	if err == nil {
		err = d.replaceBy(s, sockets)
	}
	for _, one := range sockets {
		_ = one.File.Close() // a duplicate
	}
	if err != nil {
		d.proxier.Resume()
		s.Kill()
	}
	return err
}

// replaceBy has s take over.
func (d *Daemon) replaceBy(s *upgrade.Successor, sockets []proxy.Inherited) error {
	offer, err := d.offer(sockets)
	if err != nil {
		return err
	}
	if err := s.Prepare(d.ending, offer); err != nil {
		return err
	}
	if d.ending.Err() != nil {
		return errEnding
	}
	if err := s.Commit(d.ending, d.proxier.Suspend()); err != nil {
		return err
	}
	if err := d.serving.pass(&takenOver{pid: s.PID(), build: s.Build()}); err != nil {
		return err
	}
	d.letGo(s)
	return nil
}

// offer is what the successor needs to be ready.
func (d *Daemon) offer(sockets []proxy.Inherited) (o upgrade.Offer, err error) {
	o = upgrade.Offer{Sockets: sockets, State: upgrade.State{PID: os.Getpid(), Links: d.cycles.Links()}}
	if c, ok := d.admin.listener.(syscall.Conn); ok {
		o.Admin, o.Address = c, d.admin.address()
	}
	o.State.Sets, o.State.Drained = d.sets.Export()
	if c := d.consul.Load(); c != nil {
		o.State.Saved, err = c.Save()
	}
	return o, err
}

// letGo leaves to s what it has taken over. Nothing can fail any more: at worst, s does not hear the last word, and says
// so.
func (d *Daemon) letGo(s *upgrade.Successor) {
	d.proxier.Release()
	if s.TookAdmin() {
		d.admin.Release(d.admin.listener)
	}
	d.registered.leave()
	d.registerAs(nil)
	d.service.replacedBy(s.PID())
	if c := d.consul.Load(); c != nil {
		c.HoldState(true) // last, for it waits for the disk
	}
	if err := s.Release(); err != nil {
		d.log.Warn("the successor may not know that it is on its own", "error", err)
	}
}
