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

// A plan says what a proxy is to serve. The templates of the configurations use it.
type plan struct {
	Services []service
	Portable bool // use Lictor's portable engine
	Splice   bool // set HAProxy's splice options

	KernelPath string // Lictor's kernel_path; empty: its default
	Cgroup     string // control group of the clients of the kernel path; empty: all

	Consul  string // agent for Lictor's services without endpoints
	Dir     string // folder for the files of the process
	TLS     tlsFiles
	Mesh    meshFiles
	Inbound *inbound // the instance's end of a mesh; nil: others serve that

	Pairs       int // open connections at a time, with a reserve
	Workers     int // number of processors of the proxy
	Descriptors int // limit of a process
}

// A service is one listener of a plan.
type service struct {
	Name        string
	Protocol    string
	Listen      netip.AddrPort
	Endpoints   []string
	MaxSessions int // UDP: limit on sessions; zero: none
	Responses   int // UDP: answers after which a session ends; zero: any
	IdleTimeout string
	SendProxy   bool // TCP: endpoints get a PROXY header of version 2
	AcceptProxy bool // TCP: clients send a PROXY header
	SNI         bool // TCP: clients send a ClientHello, which chooses one of several sets of the same endpoints
	TLS         bool // TCP: clients speak TLS
	Mesh        bool // TCP: endpoints speak the TLS of the mesh

	UnixClients   bool // TCP: clients connect to a Unix socket instead of Listen; see plan.Path
	UnixEndpoints bool // TCP: Endpoints are paths of Unix sockets
}

// Names of the services.
const (
	webService = "web"
	udpService = "udp"
	newService = "new" // UDP with a limit on sessions
	oneService = "one" // UDP with sessions that end with the first answer

	sendService   = "send"   // TCP with PROXY headers for endpoints
	acceptService = "accept" // TCP with PROXY headers from clients
	sniService    = "sni"    // TCP with a choice by the name in the client's ClientHello

	tlsService  = "tls"  // TCP whose clients speak TLS
	meshService = "mesh" // TCP whose endpoints speak the TLS of the mesh
	hopsService = "hops" // the same, and the proxy is at the other end, too

	fromUnixService = "from-unix" // TCP endpoints whose clients connect to a Unix socket
	toUnixService   = "to-unix"   // Unix sockets as endpoints, whose clients connect by TCP
)

// Protocol returns the protocol of the first service. Most plans have only one service.
func (p *plan) Protocol() string { return p.Services[0].Protocol }

// Listen returns the listen address of the first service.
func (p *plan) Listen() string { return p.Services[0].Listen.String() }

// Endpoints returns the endpoints of the first service.
func (p *plan) Endpoints() []string { return p.Services[0].Endpoints }

// Path returns the path of the Unix socket of a service with UnixClients.
func (p *plan) Path(s service) string { return filepath.Join(p.Dir, s.Name+".sock") }

// WorkerConnections returns nginx's limit of connections for a worker. nginx counts listeners and both sides of each
// pair, and one worker may get all of them.
func (p *plan) WorkerConnections() int { return 2*p.Pairs + len(p.Services) + 64 }

// StreamModule returns the path of nginx's stream module on Debian, or "" if the module is built in.
func (p *plan) StreamModule() string {
	const path = "/usr/lib/nginx/modules/ngx_stream_module.so"
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// Root reports whether this process runs as root. If so, nginx needs `user root`, because its workers would
// become another user.
func (p *plan) Root() bool { return os.Geteuid() == 0 }

// Config writes a configuration from the template in file and returns its path.
func (p *plan) Config(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return p.write(filepath.Base(file), string(text))
}

// peer writes a configuration from one of this program's templates and returns its path.
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

// webs returns n TCP services.
func webs(n int) []service {
	all := []service{{Name: webService, Protocol: "tcp"}}
	for i := 1; i < n; i++ {
		all = append(all, service{Name: fmt.Sprintf("%s%d", webService, i), Protocol: "tcp"})
	}
	return all
}

// ports hands out free ports below the range that the kernel gives to outgoing connections.
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

// descriptorLimit returns the limit of descriptors of this process and of those that it starts.
func descriptorLimit() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 1024
	}
	return int(min(l.Max, 1<<20))
}
