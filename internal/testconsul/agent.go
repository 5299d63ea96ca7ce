// Package testconsul runs real Consul agents for tests and for the demo:
//
//	binary, err := testconsul.Find()
//	agent, err := testconsul.Start(ctx, testconsul.Options{Binary: binary, Dir: t.TempDir()})
//	defer agent.Kill()
//	client, err := agent.Client()
//
// By default an agent runs in dev mode: server and client in one, with nothing on disk. The agent listens only on free
// ports of 127.0.0.1. An agent can be killed, stopped and restarted at the same ports.
package testconsul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// Options configure an agent.
type Options struct {
	Binary string    // path from Find or Build
	Dir    string    // folder for the agent's files, which must exist and be used for nothing else
	Output io.Writer // also receives the agent's output; nil means only Agent.Log

	ACL  bool   // default policy deny; Agent.Token is the management token
	TLS  bool   // HTTPS besides HTTP, with a private CA in Agent.CAFile
	Unix bool   // HTTP on the Unix socket Agent.Socket besides the TCP port
	GRPC bool   // gRPC without TLS at Agent.GRPC, where proxies of the mesh ask for their configuration
	HCL  string // further configuration
	UI   bool

	Node    string // name of the node; empty means test
	Servers int    // run as one of this many servers with state in Dir, not in dev mode
	Client  bool   // run as a client agent with state in Dir, not in dev mode
	Join    string // with Servers or Client: Agent.LAN of another agent
	NoWait  bool   // Start does not wait until the agent is ready

	Datacenter string // empty means dc1
	WAN        bool   // the agent can be joined with other datacenters, at Agent.WAN
	JoinWAN    string // Agent.WAN of the agent to join; implies WAN
	Peering    bool   // the agent can be peered with other clusters
}

// An Agent is a Consul agent. Its exported fields do not change after Start.
type Agent struct {
	HTTP   string // host:port
	HTTPS  string // host:port; with Options.TLS
	CAFile string // with Options.TLS; the server certificate is also valid for ServerName
	Socket string // path; with Options.Unix
	Token  string // with Options.ACL
	LAN    string // host:port
	WAN    string // host:port; with Options.WAN
	GRPC   string // host:port; with Options.GRPC

	Log *testproc.Log

	args    []string
	options Options
	process *testproc.Process
}

// ServerName is the name in the certificate of an agent with TLS. The certificate is also valid for 127.0.0.1 and
// localhost.
const ServerName = "server.dc1.consul"

// Start starts an agent, and returns when the agent has a leader and its own node in the catalog, so that registrations
// work.
func Start(ctx context.Context, options Options) (*Agent, error) {
	// Another program may take a free port before the agent opens it.
	for range 4 {
		a := &Agent{options: options, Log: &testproc.Log{Copy: options.Output}}
		if err := a.configure(ctx); err != nil {
			return nil, err
		}
		err := a.start(ctx)
		if err == nil {
			return a, nil
		}
		a.Kill()
		if !strings.Contains(a.Log.String(), "address already in use") {
			return nil, fmt.Errorf("consul: %w\n%s", err, a.Log.Tail(20))
		}
	}
	return nil, errors.New("consul: no free ports")
}

// Restart starts an agent that has ended, at the same ports. A dev agent has an empty catalog after that.
func (a *Agent) Restart(ctx context.Context) error {
	for try := 0; ; try++ {
		before := len(a.Log.String())
		err := a.start(ctx)
		if err == nil {
			return nil
		}
		a.Kill()
		said := a.Log.String()[before:]
		if try == portTries || !strings.Contains(said, "address already in use") {
			return fmt.Errorf("consul: %w\n%s", err, a.Log.Tail(20))
		}
		time.Sleep(portPause) // another program has taken a port of the agent meanwhile, and may give it back
	}
}

// Restart tries portTries times to get its ports back, portPause apart.
const (
	portTries = 40
	portPause = 250 * time.Millisecond
)

func (a *Agent) start(ctx context.Context) error {
	cmd := exec.Command(a.options.Binary, a.args...)
	cmd.Dir = a.options.Dir
	cmd.Stdout, cmd.Stderr = a.Log, a.Log
	cmd.Env = environment()
	process, err := testproc.StartApart(cmd)
	if err != nil {
		return err
	}
	a.process = process
	if a.options.NoWait {
		return nil
	}
	return a.ready(ctx)
}

// Ready waits until an agent that was started with Options.NoWait is ready.
func (a *Agent) Ready(ctx context.Context) error { return a.ready(ctx) }

// environment returns this process's environment without Consul's variables, which must not influence an agent under
// test.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CONSUL") {
			env = append(env, v)
		}
	}
	return env
}

func (a *Agent) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client, err := a.Client()
	if err != nil {
		return err
	}
	query := (&api.QueryOptions{}).WithContext(ctx)
	return testproc.Poll(ctx, func() error {
		if !a.process.Running() {
			cancel()
			return errors.New("the agent has ended")
		}
		leader, err := client.Status().LeaderWithQueryOptions(query)
		if err != nil || leader == "" {
			return fmt.Errorf("no leader: %v", err)
		}
		checks, _, err := client.Health().Node(a.options.Node, query)
		if err != nil || len(checks) == 0 {
			return fmt.Errorf("the agent's own node is not in the catalog: %v", err)
		}
		return nil
	})
}

// Client returns a client with the management token.
func (a *Agent) Client() (*api.Client, error) {
	return a.ClientWith(a.Token)
}

// ClientWith returns a client with the given token.
func (a *Agent) ClientWith(token string) (*api.Client, error) {
	config := api.DefaultConfig()
	config.Address, config.Scheme, config.Token = a.HTTP, "http", token
	return api.NewClient(config)
}

// Signal sends the agent a signal.
func (a *Agent) Signal(sig os.Signal) error { return a.process.Signal(sig) }

// Pid returns the ID of the agent's process.
func (a *Agent) Pid() int { return a.process.Pid() }

// Kill kills the agent with SIGKILL, and waits until it has ended.
func (a *Agent) Kill() {
	if a.process != nil {
		a.process.Kill()
	}
}

// Done returns a channel that is closed when the agent has ended.
func (a *Agent) Done() <-chan struct{} { return a.process.Done() }

const nodeName = "test"

func (a *Agent) configure(ctx context.Context) error {
	ports, err := freePorts(7)
	if err != nil {
		return err
	}
	a.HTTP = net.JoinHostPort("127.0.0.1", ports[0])
	a.LAN = net.JoinHostPort("127.0.0.1", ports[2])
	if a.options.Node == "" {
		a.options.Node = nodeName
	}
	a.args = append(a.mode(),
		"-bind", "127.0.0.1", "-client", "127.0.0.1", "-node", a.options.Node, "-log-level", "warn",
		"-http-port", ports[0], "-server-port", ports[1], "-serf-lan-port", ports[2],
		"-dns-port", "-1",
	)
	if a.options.GRPC {
		a.GRPC = net.JoinHostPort("127.0.0.1", ports[6])
		a.args = append(a.args, "-grpc-port", ports[6])
	} else {
		a.args = append(a.args, "-grpc-port", "-1")
	}
	if a.options.Peering {
		a.args = append(a.args, "-grpc-tls-port", ports[5])
	} else {
		a.args = append(a.args, "-grpc-tls-port", "-1")
	}
	if a.options.WAN || a.options.JoinWAN != "" {
		a.WAN = net.JoinHostPort("127.0.0.1", ports[4])
		a.args = append(a.args, "-serf-wan-port", ports[4])
	} else {
		a.args = append(a.args, "-serf-wan-port", "-1")
	}
	if a.options.JoinWAN != "" {
		a.args = append(a.args, "-retry-join-wan", a.options.JoinWAN)
	}
	if a.options.Datacenter != "" {
		a.args = append(a.args, "-datacenter", a.options.Datacenter)
	}
	if a.options.UI {
		a.args = append(a.args, "-ui")
	}

	hcl := a.options.HCL
	if a.options.ACL {
		a.Token = "6f0a1f2e-3c52-4d0e-8f43-5b8b1a9f2d11"
		hcl += fmt.Sprintf("acl { enabled = true, default_policy = \"deny\", tokens { initial_management = %q, "+
			"agent = %q } }\n", a.Token, a.Token)
	}
	if a.options.Unix {
		a.Socket = filepath.Join(a.options.Dir, "http.sock")
		hcl += fmt.Sprintf("addresses { http = %q }\n", "127.0.0.1 unix://"+a.Socket)
	}
	if a.options.TLS {
		files, err := a.certificates(ctx)
		if err != nil {
			return err
		}
		a.HTTPS = net.JoinHostPort("127.0.0.1", ports[3])
		hcl += fmt.Sprintf("ports { https = %s }\n%s", ports[3], files)
	}
	if hcl == "" {
		return nil
	}
	file := filepath.Join(a.options.Dir, "agent.hcl")
	a.args = append(a.args, "-config-file", file)
	return os.WriteFile(file, []byte(hcl), 0o600)
}

// mode returns the arguments for a dev agent, a server or a client.
func (a *Agent) mode() []string {
	data := []string{"-data-dir", filepath.Join(a.options.Dir, "data")}
	if a.options.Join != "" {
		data = append(data, "-retry-join", a.options.Join, "-retry-interval", "1s")
	}
	switch {
	case a.options.Servers > 0:
		a.options.HCL += "performance { raft_multiplier = 1 }\n"
		return append([]string{"agent", "-server", "-bootstrap-expect", strconv.Itoa(a.options.Servers)}, data...)
	case a.options.Client:
		return append([]string{"agent"}, data...)
	}
	return []string{"agent", "-dev"}
}

// certificates makes a private CA and a server certificate, as Consul's documentation recommends.
func (a *Agent) certificates(ctx context.Context) (hcl string, err error) {
	dir, err := os.MkdirTemp(a.options.Dir, "tls")
	if err != nil {
		return "", err
	}
	for _, args := range [][]string{{"tls", "ca", "create"}, {"tls", "cert", "create", "-server", "-dc", "dc1"}} {
		cmd := exec.CommandContext(ctx, a.options.Binary, args...)
		cmd.Dir = dir
		cmd.Env = environment()
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("consul %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	a.CAFile = filepath.Join(dir, "consul-agent-ca.pem")
	cert := filepath.Join(dir, "dc1-server-consul-0")
	return fmt.Sprintf("tls { https { ca_file = %q, cert_file = %q, key_file = %q, verify_incoming = false } }\n",
		a.CAFile, cert+".pem", cert+"-key.pem"), nil
}

// freePorts returns ports that are free for TCP and UDP. testproc.FreePort says which ports these are.
func freePorts(n int) ([]string, error) {
	var ports []string
	for range n {
		port, err := testproc.FreePort(func(port int) bool { return free(strconv.Itoa(port)) })
		if err != nil {
			return nil, err
		}
		ports = append(ports, strconv.Itoa(port))
	}
	return ports, nil
}

func free(port string) bool {
	address := net.JoinHostPort("127.0.0.1", port)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	_ = l.Close()
	p, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	_ = p.Close()
	return true
}
