//go:build unix

package main

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// Beside a running lictor, validate reports only the addresses that other processes use.
func TestValidateBesideARunningLictor(t *testing.T) {
	at := func(name, addr string) string {
		return strings.Replace(static(name, "127.0.0.1:1"), "127.0.0.1:0", addr, 1)
	}
	port, err := testproc.FreePort(func(port int) bool {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err == nil && l.Close() == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	own := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	r := startLictor(t, at("web", own.String()))
	for _, args := range []string{"validate", "validate -live"} {
		_, said := lictor(t, exitOK, append(strings.Fields(args), r.path)...)
		equal(t, said, "")
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	r.write(at("renamed", fmt.Sprintf("0.0.0.0:%d", own.Port)) + at("api", other.Addr().String()))
	_, said := lictor(t, exitOK, "validate", r.path)
	const note = "note: addresses in use: tcp %s (service \"api\"); the running lictor does not use them\n"
	equal(t, said, fmt.Sprintf(note, other.Addr()))
	_, said = lictor(t, exitOK, "validate", "-live", r.path)
	want := fmt.Sprintf("Service \"api\": another process listens at tcp %s already.\n", other.Addr())
	if strings.Count(said, "Warning:") != 1 || !strings.Contains(said, want) {
		t.Errorf("got %s", said)
	}
	r.end()
	_, said = lictor(t, exitOK, "validate", r.path)
	if !strings.Contains(said, "note: running lictor not asked: none answers at unix:///") ||
		!strings.Contains(said, "(service \"api\"); that is right if a lictor runs") {
		t.Errorf("got %s", said)
	}
}

// Each file and stdin are read once, and text that is too long is refused.
func TestConfigurationFromStdin(t *testing.T) {
	t.Parallel()
	src := strings.NewReader("service \"web\" {\n  listen = 9000\n}\n")
	cfg, diags := config.Load([]string{"-", "-"}, config.Options{Stdin: src})
	if cfg == nil || diags.Files() != 1 {
		t.Errorf("got %v, %v, %d files", cfg, diags.Diagnostics, diags.Files())
	}
	_, diags = config.Load([]string{"-"}, config.Options{Stdin: endless{}})
	if err := diags.Err(); err == nil || !strings.Contains(err.Error(), "<stdin> has more than 16 MiB") {
		t.Errorf("got %v", err)
	}
	_, diags = config.Load([]string{"-"}, config.Options{})
	if err := diags.Err(); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}
