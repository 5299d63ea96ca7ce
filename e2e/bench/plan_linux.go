package main

import (
	"embed"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"golang.org/x/sys/unix"
)

//go:embed peers
var peers embed.FS

// A plan is what a proxy is to serve. Templates of configurations get it.
type plan struct {
	Services []service
	Portable bool   // Lictor's engine
	Splice   bool   // HAProxy's option
	Consul   string // Lictor's agent, for services without endpoints
	Dir      string // of the process, for its files

	Pairs       int // connections that there will be at once, with some to spare
	Workers     int // as many as processors for the proxy
	Descriptors int // that a process may have
}

// A service is one listener of a plan.
type service struct {
	Name        string
	Protocol    string
	Listen      netip.AddrPort
	Endpoints   []string
	MaxSessions int // UDP: a bound on sessions is wanted
	Responses   int // UDP: a session ends after so many answers
	IdleTimeout string
}

// The names of the services.
const (
	webService = "web"
	udpService = "udp"
	newService = "new" // UDP with a bound on sessions
	oneService = "one" // UDP with sessions that end with the first answer
)

// Protocol is that of the first service, which mostly is the only one.
func (p *plan) Protocol() string { return p.Services[0].Protocol }

// Listen is where it listens.
func (p *plan) Listen() string { return p.Services[0].Listen.String() }

// Endpoints are where it forwards to.
func (p *plan) Endpoints() []string { return p.Services[0].Endpoints }

// WorkerConnections is for nginx, where the listener and both sides of a pair count, and a single worker may get all
// of them.
func (p *plan) WorkerConnections() int { return 2*p.Pairs + len(p.Services) + 64 }

// StreamModule is where Debian has nginx's stream module, or empty where it is built in.
func (p *plan) StreamModule() string {
	const path = "/usr/lib/nginx/modules/ngx_stream_module.so"
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// Root tells whether this runs as root, in which case nginx has to be told to stay so.
func (p *plan) Root() bool { return os.Geteuid() == 0 }

// Config writes a configuration from the template in the file, and returns the path.
func (p *plan) Config(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return p.write(filepath.Base(file), string(text))
}

// peer does the same with a template of this program.
func (p *plan) peer(name string) (string, error) {
	text, err := peers.ReadFile("peers/" + name)
	if err != nil {
		return "", err
	}
	return p.write(name, string(text))
}

func (p *plan) write(name, text string) (string, error) {
	out, err := p.expand(text)
	if err != nil {
		return "", err
	}
	path := filepath.Join(p.Dir, name)
	return path, os.WriteFile(path, []byte(out), 0o600)
}

func (p *plan) expand(text string) (string, error) {
	t, err := template.New("template").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = t.Execute(&out, p)
	return out.String(), err
}

// webs are n TCP services.
func webs(n int) []service {
	all := []service{{Name: webService, Protocol: "tcp"}}
	for i := 1; i < n; i++ {
		all = append(all, service{Name: fmt.Sprintf("%s%d", webService, i), Protocol: "tcp"})
	}
	return all
}

// ports hands out ports that nobody uses, below those that the kernel gives to connections.
type ports struct{ last int }

const firstPort, lastPort = 20000, 32000

func (p *ports) next() (netip.AddrPort, error) {
	for range lastPort - firstPort {
		if p.last++; p.last < firstPort || p.last >= lastPort {
			p.last = firstPort
		}
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(p.last))
		l, err := net.Listen("tcp4", addr.String())
		if err != nil {
			continue
		}
		_ = l.Close()
		c, err := net.ListenPacket("udp4", addr.String())
		if err != nil {
			continue
		}
		_ = c.Close()
		return addr, nil
	}
	return netip.AddrPort{}, fmt.Errorf("no free port from %d to %d", firstPort, lastPort)
}

// descriptorLimit is what a process may have, this one and those that it starts.
func descriptorLimit() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 1024
	}
	return int(min(l.Max, 1<<20))
}
