//go:build unix

package testconsul

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindRefusesAConsulThatCannotRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "consul")
	if err := os.WriteFile(file, []byte("not a program"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, file + "-is-not-there"} {
		t.Setenv("CONSUL", path)
		if got, err := Find(); err == nil || !strings.Contains(err.Error(), "$CONSUL") {
			t.Errorf("$CONSUL=%s: got %q, %v, want an error that names $CONSUL", path, got, err)
		}
	}
}

func TestFindOrder(t *testing.T) {
	dir := t.TempDir()
	program := func(path string) string {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
			os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("CONSUL", "")
	t.Setenv(VersionVar, "")
	t.Setenv("PATH", filepath.Join(dir, "path"))
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	t.Setenv("HOME", dir) // the parent of the cache folder on macOS
	want := func(want string) {
		t.Helper()
		if got, err := Find(); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}

	if _, err := Find(); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	_, version, err := pinned()
	if err != nil {
		t.Fatal(err)
	}
	cached, _, err := kept()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(dir, cached)
	if err != nil {
		t.Fatal(err)
	}
	want(program(relative))
	want(program("path/consul"))
	t.Setenv(VersionVar, "v1.18.2")
	if _, err := Find(); !errors.Is(err, ErrNotFound) {
		t.Errorf("with another version than those that are there: got %v, want ErrNotFound", err)
	}
	want(program(strings.Replace(relative, version, "1.18.2", 1)))
	t.Setenv(VersionVar, "latest")
	if _, err := Find(); err == nil || !strings.Contains(err.Error(), "$CONSUL_VERSION") {
		t.Errorf("got %v, want an error that names $CONSUL_VERSION", err)
	}
	named := program("elsewhere/consul-ent")
	t.Setenv("CONSUL", named)
	want(named)
}

func TestPinnedVersion(t *testing.T) {
	module, version, err := pinned()
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(module) != "consul" || !strings.HasPrefix(version, "1.") {
		t.Errorf("got version %q from %s", version, module)
	}
}
