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
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A stage holds all programs of the demo.
type stage struct {
	lictorBinary string
	dir          string // configuration and logs; removed at the end
	files        []io.Closer

	consul    *testconsul.Agent
	client    *api.Client
	instances map[string]*instance

	lictor    *testproc.Process
	lictorLog *testproc.Log
	addrs     map[string]string // lictor's listeners by service
	served    bool              // web has answered a request
	failure   error             // of a request after the first answer
}

// An instance is a process of a service. It keeps its address when it is started again.
type instance struct {
	protocol, service, name, addr string
	process                       *testproc.Process
}

func newStage(lictorBinary string) (*stage, error) {
	binary, err := filepath.Abs(lictorBinary)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lictor-demo")
	if err != nil {
		return nil, err
	}
	return &stage{lictorBinary: binary, dir: dir, instances: map[string]*instance{}, addrs: map[string]string{}}, nil
}

// close ends all processes, in an order in which no program sees another fail.
func (s *stage) close() {
	if s.lictor != nil {
		s.lictor.Stop(syscall.SIGTERM, 5*time.Second)
	}
	for _, i := range s.instances {
		i.process.Kill()
	}
	if s.consul != nil {
		s.consul.Kill()
	}
	for _, f := range s.files {
		_ = f.Close()
	}
	_ = os.RemoveAll(s.dir)
}

// logs returns the ends of Consul's and lictor's logs as an error.
func (s *stage) logs() error {
	var text strings.Builder
	if s.consul != nil {
		fmt.Fprintf(&text, "\nconsul's log ends with:\n%s", s.consul.Log.Tail(15))
	}
	if s.lictorLog != nil {
		fmt.Fprintf(&text, "\nlictor's log ends with:\n%s", s.lictorLog.Tail(15))
	}
	return errors.New(text.String())
}

func (s *stage) logFile(name string) (*os.File, error) {
	f, err := os.Create(filepath.Join(s.dir, name))
	if err == nil {
		s.files = append(s.files, f)
	}
	return f, err
}

func (s *stage) startConsul(ctx context.Context) error {
	binary, err := testconsul.Build(ctx, os.Stdout)
	if err != nil {
		return err
	}
	log, err := s.logFile("consul.log")
	if err != nil {
		return err
	}
	if s.consul, err = testconsul.Start(ctx,
		testconsul.Options{Binary: binary, Dir: s.dir, Output: log, UI: true}); err != nil {
		return err
	}
	s.client, err = s.consul.Client()
	return err
}

// start starts an instance as a process. The process runs this program in its other role.
func (s *stage) start(ctx context.Context, i *instance) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out := &testproc.Log{}
	cmd := exec.Command(self, "instance", i.protocol, i.name, i.addr)
	cmd.Stdout, cmd.Stderr = out, out
	if i.process, err = testproc.Start(cmd); err != nil {
		return err
	}
	s.instances[i.name] = i
	return await(ctx, "instance "+i.name+" listens", func() error {
		lines := out.Lines()
		if len(lines) == 0 {
			return errors.New("no output")
		}
		if _, _, err := net.SplitHostPort(lines[0]); err != nil {
			return errors.New(out.String())
		}
		i.addr = lines[0]
		return nil
	})
}

// register registers an instance in Consul, with a check every second.
func (s *stage) register(i *instance) error {
	check := &api.AgentServiceCheck{Interval: "1s", Timeout: "1s"}
	if i.protocol == "http" {
		check.HTTP = "http://" + i.addr
	} else {
		check.UDP = i.addr
	}
	addr, err := net.ResolveTCPAddr("tcp", i.addr)
	if err != nil {
		return err
	}
	return s.client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: i.name, Name: i.service, Address: addr.IP.String(), Port: addr.Port, Check: check,
	})
}

func (s *stage) startLictor(ctx context.Context) error {
	config := filepath.Join(s.dir, "lictor.hcl")
	if err := os.WriteFile(config, []byte(s.configuration()), 0o600); err != nil {
		return err
	}
	file, err := s.logFile("lictor.log")
	if err != nil {
		return err
	}
	out := &testproc.Log{}
	s.lictorLog = &testproc.Log{Copy: file}
	cmd := exec.Command(s.lictorBinary, "run", "-config", config)
	cmd.Stdout, cmd.Stderr = out, s.lictorLog
	if s.lictor, err = testproc.Start(cmd); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err = await(ctx, "lictor is ready", func() error {
		if !s.lictor.Running() {
			cancel()
			return fmt.Errorf("lictor has ended; its output: %s", out)
		}
		if !readyLine.MatchString(s.lictorLog.String()) {
			return errors.New("the log has no such line")
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, line := range out.Lines() {
		say("  lictor    %s", line)
		if f := strings.Fields(line); len(f) > 2 {
			s.addrs[f[0]] = f[2]
		}
	}
	return nil
}

var readyLine = regexp.MustCompile(`(?m)[:\]] +ready(:.*)?$`)

// configuration returns lictor's whole configuration.
func (s *stage) configuration() string {
	return fmt.Sprintf(`consul {
  address = %q
}

service "web" {
  listen = %q
}

service "echo" {
  listen   = %q
  protocol = "udp"
}
`, s.consul.HTTP, freeOr("tcp", "127.0.0.1:9000"), freeOr("udp", "127.0.0.1:5300"))
}

// freeOr returns address if it is free, or else an address whose port the kernel chooses.
func freeOr(network, address string) string {
	var l io.Closer
	var err error
	if network == "tcp" {
		l, err = net.Listen(network, address)
	} else {
		l, err = net.ListenPacket(network, address)
	}
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = l.Close()
	return address
}

// await waits until check returns nil.
func await(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := testproc.Poll(ctx, check); err != nil {
		return fmt.Errorf("not seen: %s: %w", what, err)
	}
	return nil
}
