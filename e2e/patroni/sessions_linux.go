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
	"strings"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/testpatroni"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// Parameters of the sessions.
const (
	copySize  = 500 << 20 // bytes of each COPY
	listenFor = 2 * time.Minute
)

// A session is an activity of PostgreSQL clients other than writing rows.
type session struct {
	name string
	// do runs the session at addr, which leads to the primary through Lictor. It returns what to report.
	do func(ctx context.Context, s *stage, addr string) (string, error)
}

var sessions = []session{
	{"a cancel request (Ctrl-C in psql)", cancelQuery},
	{"COPY of 500 MiB in and out", copyBoth},
	{"LISTEN, idle for two minutes, then NOTIFY", listen},
	{"switchover with PgBouncer in front", throughPgBouncer},
}

// runSessions runs all sessions and prints their reports.
func runSessions(ctx context.Context, s *stage) error {
	fmt.Println("| session | result |\n|---|---|")
	for _, one := range sessions {
		s.say("%s", one.name)
		text, err := one.do(ctx, s, s.lictor.Addr())
		if err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		fmt.Printf("| %s | %s |\n", one.name, text)
	}
	return nil
}

// psql returns a psql that executes sql at addr.
func psql(ctx context.Context, addr, sql string) *exec.Cmd {
	host, port, _ := net.SplitHostPort(addr)
	return exec.CommandContext(ctx, "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", port,
		"-U", "postgres", "-d", "postgres", "-c", sql)
}

// cancelQuery interrupts a query. The cancel request is a new connection, which Lictor may send to any endpoint.
func cancelQuery(ctx context.Context, s *stage, addr string) (string, error) {
	const sleeping = "SELECT pg_sleep(600)"
	cmd := psql(ctx, addr, sleeping)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return "", err
	}
	watcher, err := testpatroni.Connect(ctx, addr)
	if err != nil {
		return "", err
	}
	defer watcher.Close()
	err = testproc.Poll(ctx, func() error {
		rows, err := watcher.Query("SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query = '" +
			sleeping + "'")
		if err == nil && len(rows) == 0 {
			err = errors.New("the query does not run")
		}
		return err
	})
	if err != nil {
		return "", err
	}
	began := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		return "", err
	}
	_ = cmd.Wait() // it fails, and its output in said has the reason
	if !strings.Contains(said.String(), "canceling statement due to user request") {
		return "", fmt.Errorf("psql said %q", said.String())
	}
	return fmt.Sprintf("the query ends after %.3f s", time.Since(began).Seconds()), nil
}

// copyBoth copies rows in and out, through Lictor and directly.
func copyBoth(ctx context.Context, s *stage, addr string) (string, error) {
	leader := s.cluster.Leader(ctx)
	if leader == nil {
		return "", errors.New("no member is the primary")
	}
	var text []string
	for _, way := range []struct{ name, addr string }{{"through Lictor", addr}, {"without", leader.SQL()}} {
		in, out, err := copyOnce(ctx, way.addr)
		if err != nil {
			return "", fmt.Errorf("%s: %w", way.name, err)
		}
		text = append(text, fmt.Sprintf("%s: %.1f s into the database, %.1f s out of it", way.name, in.Seconds(),
			out.Seconds()))
	}
	return strings.Join(text, "; "), nil
}

func copyOnce(ctx context.Context, addr string) (in, out time.Duration, err error) {
	const table = "DROP TABLE IF EXISTS big; CREATE UNLOGGED TABLE big (line text)"
	if text, err := psql(ctx, addr, table).CombinedOutput(); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, text)
	}
	began := time.Now()
	cmd := psql(ctx, addr, "COPY big FROM STDIN")
	cmd.Stdin = io.LimitReader(lines{}, copySize)
	if text, err := cmd.CombinedOutput(); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, text)
	}
	in = time.Since(began)
	began = time.Now()
	var got counter
	cmd = psql(ctx, addr, "COPY big TO STDOUT")
	cmd.Stdout = &got
	if err := cmd.Run(); err != nil {
		return 0, 0, err
	}
	if got != copySize {
		return 0, 0, fmt.Errorf("%d bytes came back, want %d", got, copySize)
	}
	out = time.Since(began)
	text, err := psql(ctx, addr, "DROP TABLE big").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return in, out, err
}

// lines is an endless reader of rows of 1024 bytes.
type lines struct{}

func (lines) Read(b []byte) (int, error) {
	const row = 1024
	n := len(b) / row * row
	if n == 0 {
		return 0, io.ErrShortBuffer
	}
	for i := range n {
		b[i] = 'x'
		if i%row == row-1 {
			b[i] = '\n'
		}
	}
	return n, nil
}

// A counter counts the bytes written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// listen waits for a notification on a connection that has been idle for long.
func listen(ctx context.Context, s *stage, addr string) (string, error) {
	listener, err := testpatroni.Connect(ctx, addr)
	if err != nil {
		return "", err
	}
	defer listener.Close()
	if _, err := listener.Query("LISTEN news"); err != nil {
		return "", err
	}
	sleep(ctx, listenFor)
	if text, err := psql(ctx, addr, "NOTIFY news, 'hello'").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, text)
	}
	began := time.Now()
	payload, err := listener.Notification(ctx)
	if err == nil && payload != "hello" {
		err = fmt.Errorf("got %q", payload)
	}
	return fmt.Sprintf("it comes after %.3f s", time.Since(began).Seconds()), err
}

// throughPgBouncer runs a switchover with writers that dial PgBouncer, which dials Lictor.
func throughPgBouncer(ctx context.Context, s *stage, addr string) (string, error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	bouncer, err := s.startPgBouncer(addr, port)
	if err != nil {
		return "", err
	}
	defer bouncer.Stop(syscall.SIGINT, time.Second)
	at := net.JoinHostPort("127.0.0.1", port)
	err = testproc.Poll(ctx, func() error {
		c, err := testpatroni.Connect(ctx, at)
		if err == nil {
			c.Close()
		}
		return err
	})
	if err != nil {
		return "", err
	}
	writers := testpatroni.StartWriters("pgbouncer", at, 4)
	defer writers.Stop()
	working := func() error {
		since := time.Now()
		return testproc.Poll(ctx, func() error {
			if !writers.Working(since) {
				return errors.New("not all writers write through PgBouncer")
			}
			return nil
		})
	}
	if err := working(); err != nil {
		return "", err
	}
	sleep(ctx, settle)
	writers.Reset()
	if err := s.cluster.Switchover(ctx); err != nil {
		return "", err
	}
	if err := errors.Join(working(), s.cluster.AwaitHealthy(ctx), working()); err != nil {
		return "", err
	}
	t := writers.Tally()
	return fmt.Sprintf("outage %.2f s, %d read-only errors, %d other errors", t.Outage.Seconds(), t.ReadOnly,
		t.Errors), nil
}

// startPgBouncer starts a PgBouncer that listens on a port of 127.0.0.1 and dials addr.
func (s *stage) startPgBouncer(addr, port string) (*testproc.Process, error) {
	dir := filepath.Join(s.dir, "pgbouncer")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	host, to, _ := net.SplitHostPort(addr)
	text := fmt.Sprintf(`[databases]
postgres = host=%s port=%s dbname=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = trust
auth_file = %s/users
pool_mode = session
server_login_retry = 1
`, host, to, port, dir)
	users := filepath.Join(dir, "users")
	file := filepath.Join(dir, "pgbouncer.ini")
	err := errors.Join(os.WriteFile(users, []byte("\"postgres\" \"\"\n"), 0o644),
		os.WriteFile(file, []byte(text), 0o644))
	if err != nil {
		return nil, err
	}
	return testpatroni.StartAsPostgres(dir, s.log("pgbouncer"), "pgbouncer", file)
}
