package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// tour shows each part once. It returns an error if a part did not work as expected.
func (s *stage) tour(ctx context.Context) error {
	for _, part := range []func(context.Context) error{s.setUp, s.rotation, s.datagrams, s.loss, s.comeback} {
		if err := errors.Join(part(ctx), s.failure); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) setUp(ctx context.Context) error {
	say("Starting:")
	if err := s.startConsul(ctx); err != nil {
		return err
	}
	say("  consul    %s", s.consul.HTTP)
	for _, i := range []*instance{
		{protocol: "http", service: "web", name: "web-1"},
		{protocol: "http", service: "web", name: "web-2"},
		{protocol: "http", service: "web", name: "web-3"},
		{protocol: "udp", service: "echo", name: "echo-1"},
		{protocol: "udp", service: "echo", name: "echo-2"},
	} {
		i.addr = "127.0.0.1:0"
		if err := s.start(ctx, i); err != nil {
			return err
		}
		if err := s.register(i); err != nil {
			return err
		}
		say("  %-8s  %s, an instance of %s; Consul checks it each second", i.name, i.addr, i.service)
	}
	return s.startLictor(ctx)
}

func (s *stage) rotation(ctx context.Context) error {
	say("\nOne address and three instances. Each request goes to the next instance:")
	if err := s.awaitRotation(ctx, "web-1", "web-2", "web-3"); err != nil {
		return err
	}
	return s.show(ctx)
}

func (s *stage) datagrams(ctx context.Context) error {
	say("\nUDP: each new client gets the next instance:")
	seen := map[string]bool{}
	err := await(ctx, "both instances of echo answer", func() error {
		answer, err := exchange(ctx, s.addrs["echo"], "hello")
		if err != nil {
			return err
		}
		name, rest, _ := strings.Cut(answer, ": ")
		if rest != "hello" {
			return fmt.Errorf("unexpected answer: %q", answer)
		}
		if !seen[name] {
			seen[name] = true
			say("  \"hello\" to %s  ->  %q", s.addrs["echo"], answer)
		}
		if len(seen) < 2 {
			return fmt.Errorf("only %s has answered", name)
		}
		return nil
	})
	return err
}

func (s *stage) loss(ctx context.Context) error {
	victim := s.instances["web-2"]
	say("\nkill -9 %d kills web-2. Requests go on:", victim.process.Pid())
	victim.process.Kill()
	return s.change(ctx, "out of", "web-1", "web-3")
}

func (s *stage) comeback(ctx context.Context) error {
	say("\nweb-2 is started again:")
	if err := s.start(ctx, s.instances["web-2"]); err != nil {
		return err
	}
	return s.change(ctx, "back in", "web-1", "web-2", "web-3")
}

// change makes requests until the named instances are healthy in Consul and answer in rotation. No request may fail.
// Requests alone would not show Consul's view, because lictor avoids a dead instance before Consul does.
func (s *stage) change(ctx context.Context, what string, names ...string) error {
	started, requests := time.Now(), 0
	err := await(ctx, "Consul finds healthy: "+strings.Join(names, " "), func() error {
		if _, err := s.request(ctx); err != nil {
			return err
		}
		requests++
		return s.healthy(ctx, names)
	})
	if err != nil {
		return err
	}
	say("  Consul's check saw it after %.1fs; %d requests meanwhile, none failed",
		time.Since(started).Seconds(), requests)
	if err := s.awaitRotation(ctx, names...); err != nil {
		return err
	}
	say("  web-2 is %s the rotation:", what)
	return s.show(ctx)
}

// healthy returns nil if the named instances of web are exactly those that pass Consul's checks.
func (s *stage) healthy(ctx context.Context, names []string) error {
	entries, _, err := s.client.Health().Service("web", "", true, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return err
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Service.ID)
	}
	slices.Sort(got)
	if !slices.Equal(got, names) {
		return fmt.Errorf("the healthy instances are %s", strings.Join(got, " "))
	}
	return nil
}

// awaitRotation makes requests until the named instances answer in turn.
func (s *stage) awaitRotation(ctx context.Context, names ...string) error {
	return await(ctx, "the rotation is "+strings.Join(names, " "), func() error {
		var got []string
		for range 3 * len(names) {
			name, err := s.request(ctx)
			if err != nil {
				return err
			}
			got = append(got, name)
		}
		if !inTurn(got, names) {
			return fmt.Errorf("the answers were %s", strings.Join(got, " "))
		}
		return nil
	})
}

// inTurn reports whether got repeats all names in one order.
func inTurn(got, names []string) bool {
	n := len(names)
	round := slices.Clone(got[:n])
	for i, name := range got {
		if name != round[i%n] {
			return false
		}
	}
	slices.Sort(round)
	return slices.Equal(round, names)
}

// show makes some requests and prints their answers.
func (s *stage) show(ctx context.Context) error {
	var answers []string
	for range 9 {
		name, err := s.request(ctx)
		if err != nil {
			return err
		}
		answers = append(answers, name)
	}
	say("  curl http://%s  ->  %s", s.addrs["web"], strings.Join(answers, " "))
	return nil
}

// request makes a request to web and records a failure. Requests fail until the first instance has passed its first
// check. After the first answer no request may fail.
func (s *stage) request(ctx context.Context) (string, error) {
	name, err := request(ctx, s.addrs["web"])
	switch {
	case err == nil:
		s.served = true
	case s.served && s.failure == nil && ctx.Err() == nil:
		s.failure = fmt.Errorf("a request failed: %w", err)
	}
	return name, err
}

// request makes a request on a new connection, like curl.
func request(ctx context.Context, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr, nil)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(body)), err
}

// exchange sends a datagram from a new client and returns the answer.
func exchange(ctx context.Context, addr, datagram string) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(datagram)); err != nil {
		return "", err
	}
	buf := make([]byte, 1<<16)
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

// invite prints what the user can try.
func (s *stage) invite() {
	host, port, _ := net.SplitHostPort(s.addrs["echo"])
	say("\nThe demo runs until Ctrl-C. Try:")
	say("  curl http://%s", s.addrs["web"])
	say("  echo hello | nc -u -w1 %s %s", host, port)
	for _, name := range []string{"web-1", "web-2", "web-3", "echo-1", "echo-2"} {
		say("  kill %-7d # %s", s.instances[name].process.Pid(), name)
	}
	say("  http://%s/ui in a browser shows the view of Consul", s.consul.HTTP)
	say("  %s is lictor's configuration; its log is beside it", filepath.Join(s.dir, "lictor.hcl"))
}
