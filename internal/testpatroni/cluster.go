//go:build unix

// Package testpatroni runs a real Patroni cluster for tests and for measurements. The cluster has three members, each
// with its own PostgreSQL, which register in Consul.
//
//	cluster, err := testpatroni.Start(ctx, testpatroni.Options{Dir: dir, Consul: agent.HTTP})
//	defer cluster.Kill()
//	err = cluster.Switchover(ctx)
//
// The members have the addresses 127.0.0.11, 127.0.0.12 and so on. All use the same two ports, as members on different
// hosts do. Clients need no password.
package testpatroni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// Scope is the name of the cluster, and of its service in Consul.
const Scope = "batman"

const (
	superuser   = "postgres"
	replication = "replicator"
	members     = 3
)

// Options configure a cluster.
type Options struct {
	Dir    string    // folder for all files of the cluster, which must exist and be used for nothing else
	Consul string    // host:port
	Output io.Writer // also receives the members' output; nil means only Member.Log
}

// A Cluster is a running Patroni cluster. Its methods are not safe for concurrent use.
type Cluster struct {
	Members  []*Member
	SQLPort  string // the same for every member
	RESTPort string // the same for every member
}

// ErrNotInstalled is returned by Find if Patroni, or something that it needs, is not installed.
var ErrNotInstalled = errors.New("not installed; see `make patroni-install`")

// Find returns nil if everything for Start is installed. Otherwise the error names what is missing.
func Find() error {
	if _, err := exec.LookPath("patroni"); err != nil {
		return fmt.Errorf("patroni: %w", ErrNotInstalled)
	}
	if _, err := binaries(); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if _, err := user.Lookup(superuser); err != nil {
			return fmt.Errorf("user %s: %w", superuser, ErrNotInstalled)
		}
	}
	return nil
}

// binaries returns the folder with PostgreSQL's programs.
func binaries() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", fmt.Errorf("postgres: %w", ErrNotInstalled)
}

// Start starts a cluster, and returns when it has a primary that all replicas follow.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	c := &Cluster{SQLPort: ports[0], RESTPort: ports[1]}
	for i := range members {
		m := &Member{Name: fmt.Sprintf("member%d", i+1), Host: address(i), cluster: c, output: options.Output,
			dir: filepath.Join(options.Dir, fmt.Sprintf("member%d", i+1))}
		c.Members = append(c.Members, m)
		if err = m.configure(bin, options.Consul); err == nil {
			err = m.Start()
		}
		if err == nil && i == 0 { // the first member must bootstrap the cluster before the others start
			err = testproc.Poll(ctx, func() error { return m.is(ctx, "primary") })
		}
		if err != nil {
			c.Kill()
			return nil, err
		}
	}
	if err := c.AwaitHealthy(ctx); err != nil {
		c.Kill()
		return nil, err
	}
	return c, nil
}

// Kill kills all processes of the cluster with SIGKILL.
func (c *Cluster) Kill() {
	for _, m := range c.Members {
		m.Thaw()
		m.KillPatroni()
		m.KillPostgres()
	}
}

func address(i int) string { return fmt.Sprintf("127.0.0.%d", 11+i) }

// freePorts returns ports that are free at all members' addresses. testproc.FreePort says which ports these are.
func freePorts(n int) (ports []string, err error) {
	for range n {
		port, err := testproc.FreePort(func(port int) bool {
			for i := range members {
				l, err := net.Listen("tcp", net.JoinHostPort(address(i), strconv.Itoa(port)))
				if err != nil || l.Close() != nil {
					return false
				}
			}
			return true
		})
		if err != nil {
			return nil, err
		}
		ports = append(ports, strconv.Itoa(port))
	}
	return ports, nil
}

// configure writes the member's configuration. For ttl, loop_wait and retry_timeout it uses the defaults of Patroni's
// documentation.
func (m *Member) configure(bin, consul string) error {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return err
	}
	text := strings.NewReplacer("SCOPE", Scope, "NAME", m.Name, "HOST", m.Host, "DIR", m.dir, "BIN", bin,
		"CONSUL", consul, "SQL", m.cluster.SQLPort, "REST", m.cluster.RESTPort, "SUPERUSER", superuser,
		"REPLICATION", replication).Replace(patroniYAML)
	if err := os.WriteFile(m.file(), []byte(text), 0o644); err != nil {
		return err
	}
	return m.own()
}

const patroniYAML = `scope: SCOPE
name: NAME
restapi:
  listen: HOST:REST
  connect_address: HOST:REST
consul:
  host: CONSUL
  register_service: true
bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      use_slots: true
  initdb:
  - encoding: UTF8
  - data-checksums
postgresql:
  listen: HOST:SQL
  connect_address: HOST:SQL
  bin_dir: BIN
  data_dir: DIR/data
  pgpass: DIR/pgpass
  remove_data_directory_on_rewind_failure: true
  remove_data_directory_on_diverged_timelines: true
  authentication:
    superuser:
      username: SUPERUSER
    replication:
      username: REPLICATION
  pg_hba:
  - local all all trust
  - host all all 127.0.0.0/8 trust
  - host replication all 127.0.0.0/8 trust
  parameters:
    unix_socket_directories: DIR
    max_connections: 100
`

// Recipe returns the Lictor configuration text with two ports replaced: PostgreSQL's usual port by port, and Patroni's
// by this cluster's.
func (c *Cluster) Recipe(text, port string) string {
	return strings.NewReplacer("5432", port, "8008", c.RESTPort).Replace(text)
}
