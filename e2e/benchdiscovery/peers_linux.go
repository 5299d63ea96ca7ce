package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// Listen addresses of the peers.
const (
	fabioPort   = 19999
	haproxyPort = 19998

	fabioTag = "urlprefix-:19999 proto=tcp" // makes fabio forward its port to the instance
)

// startFabio starts fabio with its defaults, except that it picks round robin instead of at random and does not
// register itself.
func (s *stage) startFabio(binary string) (*follower, error) {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(fabioPort))
	cmd := exec.Command(binary, "-proxy.addr", addr+";proto=tcp", "-proxy.strategy", "rr", "-ui.addr",
		"127.0.0.1:19997",
		"-registry.consul.addr", s.consul.HTTP, "-registry.consul.register.enabled=false", "-log.level", "WARN")
	return s.startPeer("fabio", addr, cmd)
}

// template is the HAProxy configuration that consul-template fills in.
const template = `global
  maxconn 4000
  stats socket %s mode 600 level admin expose-fd listeners
defaults
  mode tcp
  timeout connect 1s
  timeout client 1m
  timeout server 1m
  retries 3
  option redispatch
frontend web
  bind %s
  default_backend web
backend web
  balance roundrobin
{{ range service "web" }}  server {{ .ID }} {{ .Address }}:{{ .Port }}
{{ end }}`

// startTemplate starts consul-template, which starts and reloads HAProxy. Both run with their defaults.
func (s *stage) startTemplate(binary, haproxy string) (*follower, error) {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(haproxyPort))
	in, out := filepath.Join(s.dir, "haproxy.ctmpl"), filepath.Join(s.dir, "haproxy.cfg")
	if err := os.WriteFile(in, fmt.Appendf(nil, template, filepath.Join(s.dir, "haproxy.sock"), addr),
		0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "-consul-addr", s.consul.HTTP, "-template", in+":"+out, "-log-level", "warn",
		"-exec", "exec "+haproxy+" -W -S "+filepath.Join(s.dir, "master.sock")+" -f "+out, "-exec-reload-signal",
		"SIGUSR2", "-exec-kill-signal", "SIGTERM")
	return s.startPeer("consul-template + HAProxy", addr, cmd)
}

func (s *stage) startPeer(name, addr string, cmd *exec.Cmd) (*follower, error) {
	log := &testproc.Log{}
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}
	p, err := testproc.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// consul-template needs SIGTERM to stop its own children.
	f := &follower{name: name, addr: addr, stop: func() { p.Stop(syscall.SIGTERM, 10*time.Second) }}
	s.changePause = slowPause
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err = testproc.Poll(ctx, func() error {
		if !p.Running() {
			cancel()
			return errors.New("it has ended")
		}
		_, err := ask(addr)
		return err
	})
	if err != nil {
		f.stop()
		return nil, fmt.Errorf("%s does not serve: %w\n%s", name, err, strings.TrimSpace(log.Tail(10)))
	}
	return f, nil
}

// settled waits until a follower sends connections to the permanent instance.
func settled(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return testproc.Poll(ctx, func() error {
		got := map[string]bool{}
		for range absent {
			name, err := ask(addr)
			if err != nil {
				return err
			}
			got[name] = true
		}
		if len(got) != 1 {
			return fmt.Errorf("%d instances", len(got))
		}
		return nil
	})
}
