//go:build amd64 || arm64

package kernel

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// A cutter destroys the sockets of all endpoints that are marked.
type cutter interface {
	run() (destroyed int, err error) // is called with the mutex of the Path
	close()
}

// prepareCuts finds a way to destroy sockets. Programs do it if the kernel lets them, because they need no list of the
// sockets.
func (p *Path) prepareCuts() {
	var noLister error
	p.lister, noLister = newLister(&p.objects)
	c, noPrograms := newIterCutter(&p.objects)
	if noPrograms == nil {
		p.cutter = c
		return
	}
	if err := probeDestroy(); err != nil {
		p.noCutter = diagnoseCutter(errors.Join(noPrograms, err))
		p.noUDPCutter = p.noCutter
		return
	}
	p.log.Debug("connections are cut by sock_diag, because programs cannot cut them", "error", noPrograms)
	p.cutter = &diagCutter{p}
	if noLister != nil {
		p.noUDPCutter = diagnoseCutter(noLister)
	}
}

// An iterCutter destroys sockets by programs, which look at what all sockets store.
type iterCutter struct {
	objects cutterObjects
	links   []*link.Iter
}

// newIterCutter loads the programs. They use the maps of the path.
func newIterCutter(p *programObjects) (*iterCutter, error) {
	spec, err := loadCutter()
	if err != nil {
		return nil, err
	}
	c := &iterCutter{}
	options := ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		cutterMapEndpoints: p.Endpoints, cutterMapSockets: p.Sockets,
	}}
	if err := spec.LoadAndAssign(&c.objects, &options); err != nil {
		return nil, err
	}
	for _, program := range []*ebpf.Program{c.objects.CutTcp, c.objects.CutUdp} {
		l, err := link.AttachIter(link.IterOptions{Program: program})
		if err != nil {
			c.close()
			return nil, err
		}
		c.links = append(c.links, l)
	}
	return c, nil
}

func (c *iterCutter) run() (int, error) {
	var before, after uint64
	if err := c.objects.Destroyed.Get(&before); err != nil {
		return 0, err
	}
	for _, l := range c.links {
		if err := iterate(l, io.Discard); err != nil {
			return 0, err
		}
	}
	err := c.objects.Destroyed.Get(&after)
	return int(after - before), err
}

// iterate runs a program for all sockets, and copies what it writes.
func iterate(l *link.Iter, to io.Writer) error {
	r, err := l.Open()
	if err != nil {
		return err
	}
	_, err = io.Copy(to, r)
	return errors.Join(err, r.Close())
}

func (c *iterCutter) close() {
	for _, l := range c.links {
		_ = l.Close()
	}
	_ = c.objects.Close()
}

// Cut destroys the sockets that were sent to these endpoints of a service, which may have left it, and returns the
// number of sockets. Connections of others to the same addresses stay. The clients see ECONNABORTED, the endpoints a
// reset. Call Set before, or clients may get these endpoints again.
//
// Cut returns an Error if CanCut does.
func (p *Path) Cut(name string, keys []uint64) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table == nil {
		return 0, os.ErrClosed
	}
	if p.cutter == nil {
		return 0, p.noCutter
	}
	if s := p.table.byName[name]; s != nil && s.udp && p.noUDPCutter != nil {
		return 0, p.noUDPCutter
	}
	if !p.table.mark(name, keys) {
		return 0, nil
	}
	n, err := p.cutter.run()
	if err != nil {
		return 0, fmt.Errorf("destroy sockets of service %q: %w", name, err)
	}
	return n, nil
}

// CanCut returns nil if Cut can destroy sockets of TCP services, or of UDP services. Otherwise it returns an Error.
// Linux 6.5 and CAP_PERFMON suffice for both, and so does a kernel with CONFIG_INET_DIAG_DESTROY, which needs
// CAP_PERFMON only for UDP.
func (p *Path) CanCut(udp bool) error {
	if udp {
		return p.noUDPCutter
	}
	return p.noCutter
}

// mark makes the cutter destroy the sockets of endpoints. An endpoint is unmarked when it returns to its service. mark
// reports whether there are such endpoints.
func (t *table) mark(name string, keys []uint64) bool {
	s := t.byName[name]
	if s == nil {
		return false
	}
	found := false
	for _, places := range []map[place]uint32{s.endpoints, s.left} {
		for p, index := range places {
			if slices.Contains(keys, p.key) {
				atomic.StoreUint32(&t.endpoints[index].Cut, 1)
				found = true
			}
		}
	}
	return found
}
