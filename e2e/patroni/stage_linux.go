package main

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

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testpatroni"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A stage holds all programs of a run.
type stage struct {
	dir     string
	logs    string // folder for logs; empty: keep no logs
	began   time.Time
	consul  *testconsul.Agent
	cluster *testpatroni.Cluster
	proxies []*testproc.Process
	lictor  *testpatroni.Writers
	haproxy *testpatroni.Writers
}

// setUp starts all programs and returns when all writers write.
func setUp(ctx context.Context, o options) (s *stage, err error) {
	if err := testpatroni.Find(); err != nil {
		return nil, err
	}
	binary, err := testconsul.Find()
	if err != nil {
		return nil, err
	}
	s = &stage{logs: o.logs, began: time.Now()}
	if s.dir, err = os.MkdirTemp("", "lictor-patroni"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.tearDown()
		}
	}()
	agent := filepath.Join(s.dir, "consul")
	if err = os.Mkdir(agent, 0o700); err != nil {
		return nil, err
	}
	s.consul, err = testconsul.Start(ctx, testconsul.Options{Binary: binary, Dir: agent, Output: s.log("consul")})
	if err != nil {
		return nil, err
	}
	s.say("starting Patroni")
	s.cluster, err = testpatroni.Start(ctx,
		testpatroni.Options{Dir: s.dir, Consul: s.consul.HTTP, Output: s.log("patroni")})
	if err != nil {
		return nil, err
	}
	if err = s.cluster.Prepare(ctx); err != nil {
		return nil, err
	}
	return s, s.startProxies(ctx, o)
}

func (s *stage) startProxies(ctx context.Context, o options) error {
	through := map[string]string{}
	for name, start := range map[string]func(options, string) error{"lictor": s.startLictor,
		"haproxy": s.startHAProxy} {
		port, err := freePort()
		if err == nil {
			err = start(o, port)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		through[name] = net.JoinHostPort("127.0.0.1", port)
	}
	s.lictor = testpatroni.StartWriters("lictor", through["lictor"], o.writers)
	s.haproxy = testpatroni.StartWriters("haproxy", through["haproxy"], o.writers)
	return s.awaitWriters(ctx, time.Now())
}

// awaitWriters waits until all writers have written since the given time.
func (s *stage) awaitWriters(ctx context.Context, since time.Time) error {
	return testproc.Poll(ctx, func() error {
		switch {
		case !s.lictor.Working(since):
			return errors.New("not all writers write through Lictor")
		case !s.haproxy.Working(since):
			return errors.New("not all writers write through HAProxy")
		}
		return nil
	})
}

// startLictor starts Lictor with the recipe in examples/patroni.hcl, on other ports.
func (s *stage) startLictor(o options, port string) error {
	recipe, err := os.ReadFile(o.recipe)
	if err != nil {
		return err
	}
	text := s.cluster.Recipe(string(recipe), port)
	text += fmt.Sprintf("consul { address = %q }\nadmin { listen = \"off\" }\n", s.consul.HTTP)
	return s.start("lictor", text, o.lictor, "run", "-config", "FILE")
}

// startHAProxy starts HAProxy as Patroni's documentation configures it.
func (s *stage) startHAProxy(o options, port string) error {
	text := strings.Replace(haproxyConfiguration, "PORT", port, 1)
	for _, m := range s.cluster.Members {
		text += fmt.Sprintf("    server %s %s maxconn 100 check port %s\n", m.Name, m.SQL(), s.cluster.RESTPort)
	}
	return s.start("haproxy", text, o.haproxy, "-db", "-f", "FILE")
}

const haproxyConfiguration = `global
    maxconn 100
defaults
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s
listen batman
    bind 127.0.0.1:PORT
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
`

// start starts a proxy. It replaces FILE in the arguments by the path of a file that holds text.
func (s *stage) start(name, text string, args ...string) error {
	file := filepath.Join(s.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	for i := range args {
		if args[i] == "FILE" {
			args[i] = file
		}
	}
	cmd := exec.Command(args[0], args[1:]...)
	log := s.log(name)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := testproc.Start(cmd)
	if err == nil {
		s.proxies = append(s.proxies, p)
	}
	return err
}

// log returns the writer for a program's output.
func (s *stage) log(name string) io.Writer {
	if s.logs == "" {
		return io.Discard
	}
	f, err := os.Create(filepath.Join(s.logs, name+".log"))
	if err != nil {
		s.say("no log of %s: %v", name, err)
		return io.Discard
	}
	return f
}

// say prints a line about the progress.
func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%7.2fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// tearDown stops all programs.
func (s *stage) tearDown() {
	for _, w := range []*testpatroni.Writers{s.lictor, s.haproxy} {
		if w != nil {
			w.Stop()
		}
	}
	for _, p := range s.proxies {
		p.Kill()
	}
	if s.cluster != nil {
		s.cluster.Kill()
	}
	if s.consul != nil {
		s.consul.Kill()
	}
	_ = os.RemoveAll(s.dir)
}

func freePort() (string, error) {
	port, err := testproc.FreePort(func(port int) bool {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		return err == nil && l.Close() == nil
	})
	return strconv.Itoa(port), err
}
