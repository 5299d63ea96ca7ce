package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lictor": main})
}

// TestScripts runs testdata/script/*.txtar. $FAKE_CONSUL is the address of a Consul that refuses one filter, and
// $HANGING_CONSUL the address of a Consul that does not answer. "exitcode N command..." runs a command that must end
// with exit code N. "eventually command..." repeats a command until it succeeds.
func TestScripts(t *testing.T) {
	consul := httptest.NewServer(http.HandlerFunc(fakeConsul))
	t.Cleanup(consul.Close)
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts connections, but no program answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hanging.Close() })
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("FAKE_CONSUL", strings.TrimPrefix(consul.URL, "http://"))
			env.Setenv("HANGING_CONSUL", hanging.Addr().String())
			// A text archive cannot hold binary files.
			if err := os.WriteFile(filepath.Join(env.WorkDir, "binary"), []byte("\x7fELF\x00\x01\n\xff"),
				0o600); err != nil {
				return err
			}
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else each process takes a second to end under the race detector
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exitcode": exitCode, "eventually": eventually,
			"mode": mode},
	})
}

// fakeConsul answers health queries like Consul, as far as validate uses the answers.
func fakeConsul(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Query().Get("filter"), "Nonsense") {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `Failed to create boolean expression evaluator: Selector "Nonsense" is not valid`)
		return
	}
	w.Header().Set("X-Consul-Index", "1")
	fmt.Fprint(w, "[]")
}

func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("got exit code %d, want %d", got, want)
	}
}

// eventually runs a command until it succeeds.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: eventually command...")
	}
	deadline := time.Now().Add(30 * time.Second)
	for ts.Exec(args[0], args[1:]...) != nil {
		if time.Now().After(deadline) {
			ts.Fatalf("waited 30s for this to succeed: %v", args)
		}
	}
}

// mode checks the permissions of a file.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode file octal")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("got mode %s, want %s", got, args[1])
	}
}
