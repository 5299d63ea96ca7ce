package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A stage is a Consul with a Lictor.
type stage struct {
	dir    string
	consul *testconsul.Agent
	api    *api.Client

	lictor         *testproc.Process
	stdout, stderr *testproc.Log
	started        time.Time
	addrs          map[string]string // listen addresses by service

	changePause time.Duration // time between two changes
}

func newStage(ctx context.Context) (*stage, error) {
	dir, err := os.MkdirTemp("", "benchdiscovery")
	if err != nil {
		return nil, err
	}
	s := &stage{dir: dir, addrs: map[string]string{}, changePause: changePause}
	binary, err := testconsul.Find()
	if err != nil {
		return s, err
	}
	if s.consul, err = testconsul.Start(ctx, testconsul.Options{Binary: binary, Dir: dir, TLS: true}); err != nil {
		return s, err
	}
	config := api.DefaultConfig()
	config.Address, config.Scheme = s.consul.HTTP, "http"
	config.Transport.MaxConnsPerHost = 100 // Consul allows 200; a refused connection would not be Lictor's fault
	s.api, err = api.NewClient(config)
	return s, err
}

func (s *stage) close() {
	if s.lictor != nil {
		s.lictor.Kill()
	}
	if s.consul != nil {
		s.consul.Kill()
	}
	_ = os.RemoveAll(s.dir)
}

// Lictor's first port. With port 0 the kernel searches for a free port each time, which takes 15 s for 10,000
// listeners.
const (
	listenHost = "127.87.65.43"
	listenPort = 20000
)

// run starts Lictor with these services and waits until it has had a first answer for each.
func (s *stage) run(ctx context.Context, binary string, services []string) error {
	var config strings.Builder
	fmt.Fprintf(&config, "consul {\n  address = %q\n  tls { ca_file = %q }\n}\n", "https://"+s.consul.HTTPS,
		s.consul.CAFile)
	for i, name := range services {
		fmt.Fprintf(&config, "service %q { listen = \"%s:%d\" }\n", name, listenHost, listenPort+i)
	}
	file := filepath.Join(s.dir, "lictor.hcl")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		return err
	}
	s.stdout, s.stderr = &testproc.Log{}, &testproc.Log{}
	cmd := exec.Command(binary, "run", "-config", file, "-log-json")
	cmd.Stdout, cmd.Stderr = s.stdout, s.stderr
	s.started = time.Now()
	var err error
	if s.lictor, err = testproc.Start(cmd); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	err = testproc.Poll(ctx, s.ready)
	if err == nil && !s.lictor.Running() {
		err = errors.New("it has ended")
	}
	if err != nil {
		return fmt.Errorf("lictor is not ready: %w\n%s", err, s.stderr.Tail(5))
	}
	for _, line := range s.stdout.Lines() {
		if f := strings.Fields(line); len(f) > 3 {
			s.addrs[f[0]] = f[2]
		}
	}
	return nil
}

// ready returns nil when Lictor is ready, and an error if Lictor has ended.
func (s *stage) ready() error {
	if s.lictor.Running() && !strings.Contains(s.stderr.String(), `"ready"`) {
		return errors.New("not ready")
	}
	return nil
}

// readyAfter returns the time from Lictor's start to its first answers for all services.
func (s *stage) readyAfter() time.Duration {
	for _, line := range s.stderr.Lines() {
		var e struct {
			Message string `json:"@message"`
			At      string `json:"@timestamp"`
		}
		if json.Unmarshal([]byte(line), &e) != nil || e.Message != "ready" {
			continue
		}
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.000Z0700"} {
			if at, err := time.Parse(layout, e.At); err == nil {
				return at.Sub(s.started).Round(time.Millisecond)
			}
		}
	}
	return time.Since(s.started)
}

// memory returns Lictor's resident memory in megabytes.
func (s *stage) memory() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.lictor.Pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			return kb * 1024 / 1e6, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// processor returns the processor time that Lictor has used.
func (s *stage) processor() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.lictor.Pid()))
	if err != nil {
		return 0, err
	}
	// The command's name is in parentheses and may contain spaces.
	f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+1:])
	var ticks int64
	for _, text := range f[11:13] {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
