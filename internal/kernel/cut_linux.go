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

// A cutter destroys sockets by what they store.
type cutter struct {
	objects cutterObjects
	links   []*link.Iter // that destroy sockets
	udp     *link.Iter   // that lists UDP sockets
}

// newCutter loads the programs. They use the maps of the path.
func newCutter(p *programObjects) (*cutter, error) {
	spec, err := loadCutter()
	if err != nil {
		return nil, err
	}
	c := &cutter{}
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
	if c.udp, err = link.AttachIter(link.IterOptions{Program: c.objects.ListUdp}); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// run destroys the sockets of all endpoints that are marked, and returns their number.
func (c *cutter) run() (int, error) {
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

func (c *cutter) close() {
	if c.udp != nil {
		_ = c.udp.Close()
	}
	for _, l := range c.links {
		_ = l.Close()
	}
	_ = c.objects.Close()
}

// Cut destroys the sockets that were sent to these endpoints of a service, which may have left it, and returns the
// number of sockets. Connections of others to the same addresses stay. The clients see ECONNABORTED, the endpoints a
// reset. Call Set before, or clients may get these endpoints again.
//
// Cut returns an Error if the process lacks CAP_PERFMON, or if the kernel is older than Linux 6.5. It does so even if
// there is no such service, so a caller can ask.
func (p *Path) Cut(name string, keys []uint64) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table == nil {
		return 0, os.ErrClosed
	}
	if p.cutter == nil {
		return 0, p.noCutter
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
