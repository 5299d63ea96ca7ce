//go:build amd64 || arm64

package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf/link"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// A Path is the kernel path of this process. Its methods may be called concurrently.
type Path struct {
	log       hclog.Logger
	objects   programObjects
	dir       string // of the control group
	links     []link.Link
	addresses *localAddresses
	reader    *eventReader
	lister    *lister // nil: UDP sockets cannot be listed
	cutter    cutter  // nil: sockets cannot be destroyed, because of noCutter

	noCutter, noUDPCutter error // see CanCut

	mu       sync.Mutex
	table    *table      // nil: closed
	udpLinks []link.Link // only while there is a UDP service, because every datagram of the host pays for them
	yielded  bool
}

// Open loads the programs, attaches them and tests them. The error says what this host lacks; it is an *Error if the
// cause is known. The caller must call Close.
func Open(o Options) (*Path, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	dir, err := findCgroup(o.Cgroup)
	if err != nil {
		return nil, err
	}
	p := &Path{log: o.Logger, dir: dir}
	if err := p.start(dir, o.Events); err != nil {
		_ = p.Close()
		return nil, err
	}
	p.log.Debug("kernel path is attached", "cgroup", dir)
	return p, nil
}

// Probe returns the error that Open would return now. It attaches the programs for a moment.
func Probe(cgroup string) error {
	p, err := Open(Options{Cgroup: cgroup})
	if err != nil {
		return err
	}
	return p.Close()
}

func (p *Path) start(dir string, events func(Event)) (err error) {
	if err := p.load(); err != nil {
		return diagnose("load the eBPF programs", err)
	}
	if p.table, err = newTable(&p.objects); err != nil {
		return err
	}
	p.prepareCuts()
	if p.addresses, err = followAddresses(p.objects.LocalAddresses, p.log); err != nil {
		return fmt.Errorf("follow the addresses of this host: %w", err)
	}
	if err := p.attachAndTest(dir); err != nil {
		return err
	}
	p.reader, err = readEvents(p.objects.Events, p.resolve, events)
	return err
}

// attachAndTest attaches the programs to the control group at dir. If this process is not in that group, its
// connections cannot test the programs there, and so they first test them in the group in which it is.
func (p *Path) attachAndTest(dir string) (err error) {
	tested := dir
	if own := ownCgroup(); !includes(dir, own) {
		tested = own
	}
	if tested == "" { // this process does not see its own group
		p.links, err = attach(dir, p.forConnections())
		return err
	}
	if p.links, err = attach(tested, p.forConnections()); err != nil {
		return err
	}
	if err := p.selfTest(); err != nil {
		return &Error{Reason: TestFailed, Detail: "the eBPF programs are attached to " + tested +
			", but a connection of this process did not take the kernel path", Err: err}
	}
	if tested == dir {
		return nil
	}
	if err := detach(p.links); err != nil {
		return err
	}
	p.links, err = attach(dir, p.forConnections())
	return err
}

// load loads maps and programs into the kernel.
func (p *Path) load() error {
	spec, err := loadProgram()
	if err != nil {
		return err
	}
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	variables := map[string]any{
		programVarNetnsCookie: cookie,
		programVarReadsSock:   hasCapability(unix.CAP_PERFMON),
	}
	for name, value := range variables {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return spec.LoadAndAssign(&p.objects, nil)
}

// netnsCookie returns the cookie of this process's network namespace, see SO_NETNS_COOKIE in socket(7).
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return cookie, os.NewSyscallError("getsockopt SO_NETNS_COOKIE", err)
}

// Set replaces the whole state of a service, or adds the service. Clients that connect meanwhile get an endpoint of
// before or after. If Set returns an error, call Remove to leave the service to the proxy.
func (p *Path) Set(s Service) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table == nil {
		return os.ErrClosed
	}
	if err := p.table.set(s); err != nil {
		return err
	}
	return p.followUDP()
}

// Remove leaves the clients of a service to the proxy. Established connections go on, but are not counted any more. A
// service that is not there is no error.
func (p *Path) Remove(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table == nil {
		return os.ErrClosed
	}
	p.table.remove(name)
	return p.followUDP()
}

// followUDP attaches or detaches the programs for datagrams.
func (p *Path) followUDP() (err error) {
	if p.yielded {
		return nil
	}
	wanted := len(p.table.udp.uses) > 0
	switch {
	case wanted && p.udpLinks == nil:
		if p.udpLinks, err = attach(p.dir, p.forDatagrams()); err != nil {
			return errors.Join(err, p.dropUDP())
		}
	case !wanted && p.udpLinks != nil:
		return p.dropUDP()
	}
	return nil
}

func (p *Path) dropUDP() error {
	err := detach(p.udpLinks)
	p.udpLinks = nil
	return err
}

// Counters returns the counters of a service, and those of each of its endpoints in no particular order. The former
// include endpoints that have left. An unknown service has none.
func (p *Path) Counters(name string) (Counters, []EndpointCounters) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table == nil {
		return Counters{}, nil
	}
	return p.table.read(name)
}

// Yield leaves all new clients to others: to the Path of another process, if there is one, or to the proxy. Clients
// that were sent to endpoints before are still counted, and can be cut, until Close. An upgrade opens the Path of the
// new process, and then calls Yield in the old one; between the two, the old Path serves. Set has no effect any more.
func (p *Path) Yield() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table == nil {
		return os.ErrClosed
	}
	if p.yielded {
		return nil
	}
	p.yielded = true
	err := detach(p.links[connectionWatchers:])
	p.links = p.links[:connectionWatchers]
	if p.udpLinks != nil {
		err = errors.Join(err, detach(p.udpLinks[datagramWatchers:]))
		p.udpLinks = p.udpLinks[:datagramWatchers]
	}
	return err
}

// Close detaches the programs, so that all new connections go to the proxy. Established connections go on. A second
// Close does nothing.
func (p *Path) Close() error {
	err := detach(p.links)
	p.links = nil
	if p.addresses != nil {
		p.addresses.close()
		p.addresses = nil
	}
	if p.reader != nil {
		p.reader.close()
		p.reader = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err = errors.Join(err, p.dropUDP())
	if p.cutter != nil {
		p.cutter.close()
		p.cutter = nil
	}
	if p.lister != nil {
		p.lister.close()
		p.lister = nil
	}
	if p.table != nil {
		p.table.close()
		p.table = nil
	}
	return errors.Join(err, p.objects.Close())
}
