package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A bench is one run of the command.
type bench struct {
	options   *options
	pins      pinning
	guard     *guard
	backends  *backends
	authority *authority
	mesh      *mesh // nil: there is none
	ports     ports
	targets   []*target // available targets
	instances map[place]*instance
	began     time.Time
}

// A place is a target with one service. Each place has its own process, so that sessions and memory of one load do not
// count for the next.
type place struct {
	target  *target
	service string
}

func newBench(o *options) (*bench, error) {
	all, err := targets(o)
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, instances: map[place]*instance{}, began: time.Now()}
	for _, t := range all {
		if t.kernel && t.why == "" && o.targets.MatchString(t.name) {
			if o.groups, err = newGroups(); err != nil {
				t.why = err.Error()
			}
		}
		switch {
		case !o.targets.MatchString(t.name):
		case t.why != "":
			b.say("%s cannot be had: %s", t.name, t.why)
			o.missing = append(o.missing, t.name+": "+t.why)
		default:
			b.targets = append(b.targets, t)
		}
	}
	if len(b.targets) == 0 {
		return nil, fmt.Errorf("no target: %s", strings.Join(o.missing, "; "))
	}
	if o.pin {
		if b.pins, err = pin(); err != nil {
			return nil, err
		}
	}
	if b.guard, err = startGuard(); err != nil {
		return nil, err
	}
	if o.groups != nil {
		b.guard.addCgroup(o.groups.kernel.Name)
		b.guard.addCgroup(o.groups.rest.Name)
		if err := o.groups.enter(); err != nil {
			b.guard.stop()
			return nil, err
		}
	}
	if b.authority, err = newAuthority(b.guard.dir); err != nil {
		b.guard.stop()
		return nil, err
	}
	if err := b.startFarEnd(); err != nil {
		b.mesh.stop()
		b.guard.stop()
		return nil, err
	}
	return b, nil
}

// startFarEnd starts the backends, and a mesh if the loads need one and there is a Consul.
func (b *bench) startFarEnd() (err error) {
	if b.options.hasMesh() {
		if b.mesh, err = startMesh(b.guard.dir); err != nil {
			b.say("no mesh: %v", err)
			b.options.missing = append(b.options.missing, "mesh: "+err.Error())
		}
	}
	if b.backends, err = startBackends(b.pins, b.guard.dir, b.mesh); err != nil || b.mesh == nil {
		return err
	}
	return b.mesh.register(b.backends)
}

func (b *bench) close() {
	for _, i := range b.instances {
		b.stop(i)
	}
	b.backends.stop()
	b.mesh.stop()
	if b.options.groups != nil {
		if err := b.options.groups.remove(); err != nil {
			b.say("%v", err)
		}
	}
	b.guard.stop()
}

// as makes f a client of a target.
func (b *bench) as(t *target, f func() (sample, error)) (sample, error) {
	if t.kernel {
		return b.options.groups.as(f)
	}
	return f()
}

// say prints the progress to stderr.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%5.1fs "+format+"\n", append([]any{time.Since(b.began).Seconds()}, args...)...)
}

// scaled returns an amount of work, reduced to a quarter in a quick run.
func (b *bench) scaled(work int) int {
	if b.options.quick {
		return work / 4
	}
	return work
}

// pause returns how long to wait until memory has settled.
func (b *bench) pause() time.Duration {
	if b.options.quick {
		return 300 * time.Millisecond
	}
	return time.Second
}

// services returns the services. Each suitable target gets a process for each.
func services() []service {
	return []service{
		{Name: webService, Protocol: "tcp"},
		{Name: sendService, Protocol: "tcp", SendProxy: true},
		{Name: acceptService, Protocol: "tcp", AcceptProxy: true},
		{Name: fromUnixService, Protocol: "tcp", UnixClients: true},
		{Name: toUnixService, Protocol: "tcp", UnixEndpoints: true},
		{Name: sniService, Protocol: "tcp", SNI: true},
		{Name: tlsService, Protocol: "tcp", TLS: true},
		{Name: meshService, Protocol: "tcp", Mesh: true},
		{Name: udpService, Protocol: "udp"},
		{Name: newService, Protocol: "udp", MaxSessions: maxSessions},
		{Name: oneService, Protocol: "udp", MaxSessions: maxSessions, Responses: 1},
	}
}

// plan makes a plan of services with the given number of endpoints. Each service listens on its own port.
func (b *bench) plan(endpoints int, services ...service) (plan, error) {
	p := plan{TLS: b.authority.files, Workers: b.pins.workers(), Pairs: 1100, Descriptors: descriptorLimit(),
		Services: services}
	for i := range p.Services {
		s := &p.Services[i]
		s.Endpoints = b.backends.endpoints(endpoints)
		if s.UnixEndpoints {
			s.Endpoints = b.backends.paths
		}
		if s.Mesh {
			p.Mesh, s.Endpoints = b.mesh.files, b.backends.meshEndpoints()
		}
		if s.MaxSessions > 0 {
			p.Pairs += 2 * s.MaxSessions
		}
		var err error
		if s.Listen, err = b.ports.next(); err != nil {
			return p, err
		}
	}
	return p, nil
}

// begin starts an instance and does not wait until it is ready.
func (b *bench) begin(t *target, p plan) (*instance, error) {
	i, err := t.start(p, b.pins, b.guard.dir)
	if err == nil && i.process != nil {
		b.guard.add(i.group())
	}
	return i, err
}

// launch starts an instance and waits until it is ready.
func (b *bench) launch(t *target, p plan) (*instance, error) {
	i, err := b.begin(t, p)
	if err != nil {
		return nil, err
	}
	if err := i.ready(); err != nil {
		b.stop(i)
		return nil, err
	}
	return i, nil
}

func (b *bench) stop(i *instance) {
	i.stop()
	if i.process != nil {
		b.guard.remove(i.group())
	}
}

// launchAll starts the instances that several loads share.
func (b *bench) launchAll() error {
	for _, t := range b.targets {
		for _, s := range services() {
			if !t.serves(s) || s.Mesh && b.mesh == nil {
				continue
			}
			p, err := b.plan(backendCount, s)
			if err != nil {
				return err
			}
			i, err := b.launch(t, p)
			if err != nil {
				return err
			}
			b.instances[place{t, s.Name}] = i
		}
	}
	return nil
}

// instance returns a target's process for a service. Those at both ends of a mesh are started when they are first
// asked for.
func (b *bench) instance(t *target, service string) (i *instance, err error) {
	at := place{t, service}
	if i = b.instances[at]; i == nil && service == hopsService {
		if i, err = b.startHops(t); err == nil {
			b.instances[at] = i
		}
	}
	return i, err
}

// profile records a proxy with perf, if the options say so, until the returned function is called.
func (b *bench) profile(i *instance) (stop func()) {
	if b.options.perf == "" || i.process == nil {
		return func() {}
	}
	pids, err := members(i.group())
	if err != nil {
		b.say("no profile: %v", err)
		return func() {}
	}
	var list []string
	for _, pid := range pids {
		list = append(list, strconv.Itoa(pid))
	}
	path := filepath.Join(b.options.perf, fmt.Sprintf("%s-%s.data", b.options.current, i.target.name))
	log := &testproc.Log{}
	cmd := exec.Command("perf", "record", "-q", "-F", "997", "-g", "-o", path, "-p", strings.Join(list, ","))
	cmd.Stdout, cmd.Stderr = log, log
	p, err := testproc.Start(cmd)
	if err != nil {
		b.say("no profile: %v", err)
		return func() {}
	}
	time.Sleep(200 * time.Millisecond) // perf does not report when it is attached
	return func() {
		p.Stop(syscall.SIGINT, 5*time.Second)
		if strings.TrimSpace(log.String()) != "" {
			b.say("perf: %s", log.Tail(3))
		}
	}
}

// suits reports whether a load can run on a target.
func (l *load) suits(t *target) bool {
	return (!l.udp || t.udp) && (!l.one || t.responses) && (!l.sends || t.sends) && (!l.accepts || t.accepts) &&
		(!l.unix || t.unix) && (!l.sni || t.sni) && (!l.tls || t.tls) && (!l.mesh || t.mesh) &&
		(!l.hops || t.hops) && (!l.follows || t.follows) && (l.mesh || l.hops || !t.meshOnly) &&
		(l.hops || !t.oneProcess) && (!l.kernel || t.kernel) && (!l.bounded && !l.fresh || !t.plain)
}

// baseline returns the name of the target that the others are compared with.
func (l *load) baseline() string {
	if l.udp {
		return "nginx"
	}
	return "haproxy"
}

// missing returns the sample of a failed measurement.
func missing() sample { return sample{mErrors: math.NaN()} }
