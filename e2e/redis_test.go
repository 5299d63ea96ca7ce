//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// The example for Redis follows the primary, in whichever order Consul learns of the change: the former primary, which
// can still be reached, loses its clients.
func TestExampleRedisPrimaryFollowsConsul(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "redis-primary", "a", startEcho(t, "a").addr, checked)
	c.register(t, "redis-primary", "b", startEcho(t, "b").addr, checked)
	c.setHealth(t, "b", api.HealthCritical)
	l := runLictor(t, readExample(t, c, "redis-primary/lictor.hcl"))
	redis := l.addr(t, "redis")
	awaitRotation(t, redis, "a")

	client := mustConnect(t, redis)
	c.setHealth(t, "a", api.HealthCritical)
	client.awaitReset(t)
	c.setHealth(t, "b", api.HealthPassing)
	awaitRotation(t, redis, "b")

	client = mustConnect(t, redis)
	c.setHealth(t, "a", api.HealthPassing)
	c.setHealth(t, "b", api.HealthCritical)
	client.awaitReset(t)
	awaitRotation(t, redis, "a")
}

// The check of the example asks a real Redis, and clients follow a failover.
func TestExampleRedisPrimaryWithRedis(t *testing.T) {
	anyEngine(t)
	for _, program := range []string{"redis-server", "redis-cli"} {
		if _, err := exec.LookPath(program); err != nil {
			testproc.Cannot(t, "there is no Redis", err)
		}
	}
	t.Parallel()
	a := startRedis(t)
	b := startRedis(t, "--replicaof", "127.0.0.1", fmt.Sprint(a.Port()))
	c := startConsul(t, testconsul.Options{HCL: redisRegistration(t, a)})
	startConsul(t, testconsul.Options{Client: true, Join: c.LAN, Node: "b", HCL: redisRegistration(t, b)})
	l := runLictor(t, readExample(t, c, "redis-primary/lictor.hcl"))
	redis := l.addr(t, "redis")
	serves := func(want netip.AddrPort) func() error {
		return func() error {
			out, err := redisCommand(redis, "config", "get", "port")
			if port := fmt.Sprint(want.Port()); err == nil && !strings.Contains(out, port) {
				err = fmt.Errorf("got %q, want the port %s", out, port)
			}
			return err
		}
	}
	eventually(t, "clients reach the primary", serves(a))
	kept, err := net.Dial("tcp", redis.String())
	must(t, err)
	defer kept.Close()
	answer := make([]byte, len("+PONG\r\n"))
	_, err = fmt.Fprint(kept, "PING\r\n")
	must(t, err)
	_, err = io.ReadFull(kept, answer)
	must(t, err)

	for _, command := range []struct {
		at   netip.AddrPort
		args []string
	}{
		{b, []string{"replicaof", "no", "one"}},
		{a, []string{"replicaof", "127.0.0.1", fmt.Sprint(b.Port())}},
	} {
		_, err := redisCommand(command.at, command.args...)
		must(t, err)
	}
	eventually(t, "clients reach the new primary", serves(b))
	must(t, kept.SetReadDeadline(time.Now().Add(patience)))
	if _, err := kept.Read(answer); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client of the former primary: got %v, want a reset", err)
	}
	out, err := redisCommand(redis, "set", "key", "value")
	if err != nil || out != "OK\n" {
		t.Errorf("a write at the new primary: got %q, %v", out, err)
	}
}

// startRedis starts a Redis that saves nothing.
func startRedis(t testing.TB, options ...string) netip.AddrPort {
	t.Helper()
	addr, log := freePort(t), &testproc.Log{}
	cmd := exec.Command("redis-server", append([]string{"--bind", addr.Addr().String(),
		"--port", fmt.Sprint(addr.Port()), "--save", "", "--dir", t.TempDir()}, options...)...)
	cmd.Stdout, cmd.Stderr = log, log
	process, err := testproc.Start(cmd)
	must(t, err)
	t.Cleanup(process.Kill)
	eventually(t, "Redis is ready", func() error {
		if !process.Running() {
			t.Fatalf("Redis has ended: %s", log)
		}
		out, err := redisCommand(addr, "ping")
		if err == nil && out != "PONG\n" {
			err = errors.New(out)
		}
		return err
	})
	return addr
}

// redisCommand returns what redis-cli prints of the answer to a command.
func redisCommand(at netip.AddrPort, args ...string) (string, error) {
	args = append([]string{"-h", at.Addr().String(), "-p", fmt.Sprint(at.Port())}, args...)
	out, err := exec.Command("redis-cli", args...).CombinedOutput()
	return string(out), err
}

// redisRegistration returns what the example adds to the configuration of an agent beside a Redis at addr.
func redisRegistration(t testing.TB, addr netip.AddrPort) string {
	t.Helper()
	text := readFile(t, "../examples/redis-primary/consul.hcl")
	return "enable_local_script_checks = true\n" + strings.ReplaceAll(text, "6379", fmt.Sprint(addr.Port()))
}
