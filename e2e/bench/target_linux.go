package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A target is a kind of proxy to measure.
type target struct {
	name      string
	udp       bool
	responses bool // can end a session after a number of answers
	sends     bool // can send PROXY headers of version 2
	accepts   bool // can accept PROXY headers
	unix      bool // can serve Unix sockets on either side
	sni       bool // can choose by the name in a ClientHello
	tls       bool // can speak TLS with clients
	mesh      bool // can speak the TLS of the mesh with endpoints
	meshOnly  bool // can do nothing else
	plain     bool // can only serve TCP and UDP without any option of a service
	kernel    bool // acts on clients in the control group only
	hops      bool // can be both ends of a mesh
	follows   bool // resets connections that a change of an intention denies
	adapt     func(*plan)
	command   func(*plan) ([]string, error) // nil: no proxy; clients use the endpoints themselves
	why       string                        // why it is not available; empty if it is
	install   string                        // how to install it; empty: "make bench-peers"

	oneProcess bool // is both ends of a mesh in one process, and does nothing else
	registered bool // does not register its end of the mesh itself
}

// Names of targets that others are compared with.
const (
	lictorTarget = "lictor"
	directTarget = "direct"
	kernelTarget = "lictor-kernel"
)

// An instance is a running target.
type instance struct {
	target  *target
	plan    *plan
	process *testproc.Process // nil without a proxy
	far     *testproc.Process // the instance's end of a mesh, in the same process group; nil: there is none
	mesh    *mesh             // of this instance only; nil: there is none
	log     *testproc.Log
	exec    time.Time // start time
}

// targets returns all targets that this program knows and those named by flags.
func targets(o *options) ([]*target, error) {
	lictor, err := filepath.Abs(o.lictor)
	if err != nil {
		return nil, err
	}
	run := func(p *plan) ([]string, error) {
		config, err := p.peer("lictor.hcl")
		return []string{lictor, "run", "-config", config}, err
	}
	haproxy := func(p *plan) ([]string, error) {
		config, err := p.peer("haproxy.cfg")
		return []string{locate("haproxy"), "-db", "-q", "-f", config}, err
	}
	nginx := func(p *plan) ([]string, error) {
		config, err := p.peer("nginx.conf")
		return []string{locate("nginx"), "-e", "stderr", "-p", p.Dir, "-c", config}, err
	}
	sidecar := func(p *plan) ([]string, error) {
		binary, err := testconsul.Find()
		argv := []string{binary, "connect", "proxy", "-log-level", "warn", "-http-addr", p.Mesh.Consul}
		if in := p.Inbound; in != nil {
			return append(argv, "-service", meshService, "-service-addr", in.Local, "-listen", in.Listen.String()), err
		}
		return append(argv, "-service", meshIdentity, "-upstream", meshService+":"+p.Listen()), err
	}
	all := []*target{
		{name: lictorTarget, command: run},
		{name: kernelTarget, plain: true, kernel: true, command: run, adapt: func(p *plan) {
			p.KernelPath = cmp.Or(p.KernelPath, "on")
			if o.groups != nil {
				p.Cgroup = o.groups.kernel.Name
			}
		}},
		{name: "lictor-portable", command: run, adapt: func(p *plan) { p.Portable = true }},
		{name: "lictor-one", oneProcess: true, command: run},
		{name: "haproxy", sends: true, accepts: true, sni: true, tls: true, mesh: true, hops: true, registered: true,
			unix: true, command: haproxy},
		{name: "haproxy-splice", sni: true, unix: true, command: haproxy, adapt: func(p *plan) { p.Splice = true }},
		{name: "consul-proxy", mesh: true, meshOnly: true, hops: true, registered: true, command: sidecar},
		{name: "ghostunnel", mesh: true, meshOnly: true, hops: true, registered: true, command: ghostunnel,
			install: "make bench-ghostunnel"},
		{name: "nginx", udp: true, responses: true, accepts: true, sni: true, unix: true, command: nginx},
		{name: directTarget, udp: true, plain: true},
	}
	for _, text := range o.peers {
		name, command, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("-peer %q: write name=command", text)
		}
		name, udp := strings.CutSuffix(name, "+udp")
		all = append(all, &target{name: name, udp: udp, command: custom(command)})
	}
	for _, t := range all {
		if t.why = t.unavailable(); t.why == "" && strings.HasPrefix(t.name, "lictor") {
			t.examine()
		}
	}
	return all, nil
}

// examine finds out what a lictor can do. Not every release knows all.
func (t *target) examine() {
	t.udp = t.understands(func(p *plan) { p.Services[0].Protocol = "udp" })
	t.responses = t.understands(func(p *plan) {
		p.Services = []service{{Name: "x", Protocol: "udp", Responses: 1}}
	})
	t.sends = t.understands(func(p *plan) { p.Services[0].SendProxy = true })
	t.accepts = t.understands(func(p *plan) { p.Services[0].AcceptProxy = true })
	t.unix = t.understands(func(p *plan) { p.Services[0].UnixClients = true })
	t.mesh = t.understands(func(p *plan) {
		p.Mesh.Consul, p.Services[0].Mesh = "127.0.0.1:1", true
	})
	t.hops = (t.name == lictorTarget || t.oneProcess) && t.understands(func(p *plan) {
		p.Mesh.Consul, p.Inbound = "127.0.0.1:1", &inbound{Listen: netip.MustParseAddrPort("127.0.0.1:3"),
			Local: "127.0.0.1:4"}
	})
	t.follows = t.hops && !t.oneProcess // whose descriptors do not suffice for 5,000 connections
	t.sni = t.understands(func(p *plan) { p.Services[0].SNI = true })
	t.tls = t.understands(func(p *plan) {
		a, err := newAuthority(p.Dir)
		if err == nil {
			p.TLS, p.Services[0].TLS = a.files, true
		}
	})
}

// serves reports whether the target can serve s.
func (t *target) serves(s service) bool {
	return (s.Protocol != "udp" || t.udp) && (s.Responses == 0 || t.responses) && (!s.SendProxy || t.sends) &&
		(!s.AcceptProxy || t.accepts) && (!s.UnixClients && !s.UnixEndpoints || t.unix) &&
		(!s.SNI || t.sni) && (!s.TLS || t.tls) && (!s.Mesh || t.mesh) && (s.Mesh || !t.meshOnly) &&
		(s.MaxSessions == 0 || !t.plain) && !t.oneProcess
}

// custom returns the command of a peer that a flag names.
func custom(command string) func(*plan) ([]string, error) {
	return func(p *plan) ([]string, error) {
		text, err := p.expand(command)
		return strings.Fields(text), err
	}
}

// locate returns the path of a program. It also looks in folders that may not be in a user's PATH, where Debian has
// proxies.
func locate(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return filepath.Join("/usr/sbin", name)
}

// unavailable returns why a target is not available, or "".
func (t *target) unavailable() string {
	if t.command == nil {
		return ""
	}
	if strings.HasPrefix(t.name, "lictor") {
		return t.refuses(func(*plan) {})
	}
	argv, remove, err := t.example(func(*plan) {})
	if err != nil {
		return err.Error()
	}
	defer remove()
	if _, err := exec.LookPath(argv[0]); err != nil {
		return "not installed (" + cmp.Or(t.install, "make bench-peers") + ")"
	}
	return ""
}

// example returns the command for a small plan. remove removes the files of the plan.
func (t *target) example(adapt func(*plan)) (argv []string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "lictor-bench")
	if err != nil {
		return nil, nil, err
	}
	p := &plan{Dir: dir, Services: []service{{Name: "x", Protocol: "tcp"}}}
	adapt(p)
	for i := range p.Services {
		p.Services[i].Listen = netip.MustParseAddrPort("127.0.0.1:1")
		p.Services[i].Endpoints = []string{"127.0.0.1:2"}
	}
	if t.adapt != nil {
		t.adapt(p)
	}
	if argv, err = t.command(p); err != nil {
		discard(dir)
		return nil, nil, err
	}
	return argv, func() { discard(dir) }, nil
}

func (t *target) understands(adapt func(*plan)) bool { return t.refuses(adapt) == "" }

// refuses returns why `lictor validate` refuses a plan, or "". Older releases of Lictor do not know all arguments.
func (t *target) refuses(adapt func(*plan)) string {
	argv, remove, err := t.example(adapt)
	if err != nil {
		return err.Error()
	}
	defer remove()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], "validate", argv[len(argv)-1]).CombinedOutput()
	if err == nil {
		return ""
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if first == "" {
		first = err.Error()
	}
	return first
}

// start starts the target with a plan and returns at once. The process leads its own process group and keeps its files
// below the folder files.
func (t *target) start(p plan, pins pinning, files string) (*instance, error) {
	dir, err := os.MkdirTemp(files, t.name)
	if err != nil {
		return nil, err
	}
	p.Dir = dir
	if t.adapt != nil {
		t.adapt(&p)
	}
	i := &instance{target: t, plan: &p, log: &testproc.Log{}}
	switch {
	case t.command == nil:
		return i, nil
	case p.Inbound == nil || t.oneProcess:
		i.process, err = i.run(p, 0, pins)
	default:
		err = i.runBoth(pins)
	}
	if err != nil {
		discard(dir)
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	return i, nil
}

// runBoth starts a process for each end of a mesh.
func (i *instance) runBoth(pins pinning) (err error) {
	near, far := *i.plan, *i.plan
	near.Inbound = nil
	if i.process, err = i.run(near, 0, pins); err != nil {
		return err
	}
	far.Services, far.Dir = nil, filepath.Join(i.plan.Dir, "far")
	if err = os.Mkdir(far.Dir, 0o700); err == nil {
		i.far, err = i.run(far, i.group(), pins)
	}
	if err != nil {
		i.process.Kill()
	}
	return err
}

// run starts a process for a plan, in a process group that exists. Zero means a new group, which it leads.
func (i *instance) run(p plan, group int, pins pinning) (*testproc.Process, error) {
	argv, err := i.target.command(&p)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.SysProcAttr = p.Dir, &syscall.SysProcAttr{Pgid: group}
	cmd.Stdout, cmd.Stderr = i.log, i.log
	if p.Mesh.Consul != "" {
		cmd.Env = append(os.Environ(), meshEnvironment)
	}
	i.exec = time.Now()
	return pins.start(cmd, pins.proxy)
}

// ready waits until all services answer.
func (i *instance) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, s := range []int{0, len(i.plan.Services) - 1} {
		err := testproc.Poll(ctx, func() error {
			if i.process != nil && !i.process.Running() {
				cancel()
				return fmt.Errorf("it ended: %s", i.log.Tail(5))
			}
			return i.probe(i.plan.Services[s], i.addrs()[s])
		})
		if err != nil {
			return fmt.Errorf("%s is not ready: %w", i.target.name, err)
		}
	}
	return nil
}

// probe makes one request to a service at addr.
func (i *instance) probe(s service, addr netip.AddrPort) error {
	network, to := s.Protocol, addr.String()
	if s.UnixClients {
		network, to = "unix", i.plan.Path(s)
	}
	c, err := net.DialTimeout(network, to, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		return err
	}
	if s.TLS {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // only asks whether the proxy serves
	}
	request := message(opEcho, 0)
	if s.AcceptProxy {
		request = append(proxyHeader(), request...)
	}
	if s.SNI {
		request = append(clientHello(), request...)
	}
	if _, err := c.Write(request); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, messageSize))
	return err
}

// addrs returns the addresses that clients use in turn: where each service listens, or the endpoints of the first
// service if there is no proxy.
func (i *instance) addrs() []netip.AddrPort {
	var all []netip.AddrPort
	if i.process == nil {
		for _, e := range i.plan.Endpoints() {
			all = append(all, netip.MustParseAddrPort(e))
		}
		return all
	}
	for _, s := range i.plan.Services {
		all = append(all, s.Listen)
	}
	return all
}

// open opens n connections to the first service. Each has had an answer.
func (i *instance) open(n int) ([]int, error) {
	if s := i.plan.Services[0]; s.UnixClients {
		return openUnix(i.plan.Path(s), n)
	}
	return open(i.addrs(), n)
}

// discard removes a folder. It ignores errors, because leftovers in the temporary folder do no harm.
func discard(dir string) { _ = os.RemoveAll(dir) }

// group returns the process group of the proxy, or zero without one.
func (i *instance) group() int {
	if i.process == nil {
		return 0
	}
	return i.process.Pid()
}

// usage measures the proxy. Without one it is zero.
func (i *instance) usage() (usage, error) {
	if i.process == nil {
		return usage{}, nil
	}
	return usageOf(i.group())
}

// stop ends the process group. It sends SIGTERM first, so that a master process can stop its workers.
func (i *instance) stop() {
	if i.process == nil {
		discard(i.plan.Dir)
		return
	}
	pids, err := members(i.group())
	i.process.Stop(syscall.SIGTERM, time.Second)
	if i.far != nil {
		i.far.Stop(syscall.SIGTERM, time.Second)
	}
	i.mesh.stop()
	for _, pid := range pids {
		if pid != i.group() && err == nil && inGroup(pid, i.group()) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // the process may have ended just now
		}
	}
	discard(i.plan.Dir)
}

// inGroup reports whether the process pid still belongs to the group. The kernel may have reused the ID.
func inGroup(pid, group int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, pgrp, ok := parseStat(string(text))
	return err == nil && ok && pgrp == group
}
