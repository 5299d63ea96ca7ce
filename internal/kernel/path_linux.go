//go:build amd64 || arm64

package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// A Path is the kernel path of this process. Its methods may be called concurrently.
type Path struct {
	log       hclog.Logger
	objects   programObjects
	links     []link.Link
	addresses *localAddresses
	reader    *eventReader
	cutter    *cutter // nil: sockets cannot be destroyed, because of noCutter
	noCutter  error

	mu    sync.Mutex
	table *table // nil: closed
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
	p := &Path{log: o.Logger}
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
	if p.cutter, err = newCutter(&p.objects); err != nil {
		p.noCutter = diagnoseCutter(err)
	}
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
func (p *Path) attachAndTest(dir string) error {
	tested := dir
	if own := ownCgroup(); !includes(dir, own) {
		tested = own
	}
	if tested == "" { // this process does not see its own group
		return p.attach(dir)
	}
	if err := p.attach(tested); err != nil {
		return err
	}
	if err := p.selfTest(); err != nil {
		return &Error{Reason: TestFailed, Detail: "the eBPF programs are attached to " + tested +
			", but a connection of this process did not take the kernel path", Err: err}
	}
	if tested == dir {
		return nil
	}
	return errors.Join(p.detach(), p.attach(dir))
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

// attach attaches the programs by links, which end with this process. The programs that only watch come first.
func (p *Path) attach(dir string) error {
	group, err := os.Open(dir)
	if err != nil {
		return &Error{Reason: NoCgroup, Detail: "the control group cannot be opened", Err: err}
	}
	defer func() { _ = group.Close() }()
	for _, each := range []struct {
		program *ebpf.Program
		to      ebpf.AttachType
	}{
		{p.objects.Follow, ebpf.AttachCGroupSockOps},
		{p.objects.Getpeername4, ebpf.AttachCgroupInet4GetPeername},
		{p.objects.Getpeername6, ebpf.AttachCgroupInet6GetPeername},
		{p.objects.Connect4, ebpf.AttachCGroupInet4Connect},
		{p.objects.Connect6, ebpf.AttachCGroupInet6Connect},
	} {
		options := link.RawLinkOptions{Target: int(group.Fd()), Program: each.program, Attach: each.to}
		l, err := link.AttachRawLink(options)
		if err != nil {
			return diagnose(fmt.Sprintf("attach an eBPF program to %s (%v)", dir, each.to), err)
		}
		p.links = append(p.links, l)
	}
	return nil
}

func (p *Path) detach() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	p.links = nil
	return errors.Join(errs...)
}

// Set replaces the whole state of a service, or adds the service. Clients that connect meanwhile get an endpoint of
// before or after. If Set returns an error, call Remove to leave the service to the proxy.
func (p *Path) Set(s Service) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table == nil {
		return os.ErrClosed
	}
	return p.table.set(s)
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
	return nil
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

// Close detaches the programs, so that all new connections go to the proxy. Established connections go on. A second
// Close does nothing.
func (p *Path) Close() error {
	err := p.detach()
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
	if p.cutter != nil {
		p.cutter.close()
		p.cutter = nil
	}
	if p.table != nil {
		p.table.close()
		p.table = nil
	}
	return errors.Join(err, p.objects.Close())
}
