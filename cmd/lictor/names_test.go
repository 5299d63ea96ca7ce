package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
)

// completed returns what a predictor offers after the words, sorted.
func completed(p predictor, words string) string {
	names := p(typed{words: strings.Fields(words)})
	slices.Sort(names)
	return strings.Join(names, " ")
}

// Commands complete the names of services and endpoints of the running lictor.
func TestCompletionOfNames(t *testing.T) {
	t.Parallel()
	f := newFakeLictor(t, map[string]any{
		"GET /v1/status": admin.Status{},
		"GET /v1/services": admin.ServicesAnswer{Services: []admin.Service{
			{Name: "db", Endpoints: []admin.Endpoint{{ID: "n1/db-1"}}},
			{Name: "web", Endpoints: []admin.Endpoint{{ID: "10.0.0.1:80"}, {ID: "n1/web 2"}, {ID: "n1/web-3"}}},
			{Name: "a name that a shell splits"}, {Name: "esc\x1b[31m"},
		}},
	})
	ask := "-admin " + f.address + " "
	for _, c := range []interface {
		AutocompleteArgs() predictor
	}{newStatusCommand(console{}), newExplainCommand(console{}), newEventsCommand(console{}),
		newConnectionsCommand(console{})} {
		equal(t, completed(c.AutocompleteArgs(), ask), "db web")
		equal(t, completed(c.AutocompleteArgs(), ask+"web"), "")
		equal(t, completed(c.AutocompleteArgs(), ask+"-nonsense x"), "")
	}
	connections := newConnectionsCommand(console{})
	endpoints := connections.AutocompleteFlags()["-endpoint"]
	equal(t, completed(endpoints, ask+"-endpoint"), "10.0.0.1:80 n1/db-1 n1/web-3")
	equal(t, completed(endpoints, ask+"web -endpoint"), "10.0.0.1:80 n1/web-3")
	equal(t, completed(connections.AutocompleteFlags()["-n"], "-n"), "") // a value, and no service
	if connections.AutocompleteFlags()["-json"] != nil {
		t.Error("-json takes no value")
	}
}

// Without a running lictor, the names come from the configuration.
func TestCompletionOfNamesInAConfiguration(t *testing.T) {
	t.Parallel()
	path := write(t, t.TempDir(), "lictor.hcl", `
service "web" { listen = 9000 }
service "db" {
  listen = 9001
  static { endpoints = ["10.0.0.5:80", "DB.example.com:5432"] }
}
`)
	a := asker{address: "127.0.0.1:1"}
	services := a.services(t.Context(), filepath.Dir(path))
	equal(t, strings.Join(serviceNames(services, nil), " "), "db web")
	equal(t, strings.Join(endpointNames(services, nil), " "), "10.0.0.5:80 db.example.com:5432")
	if got := a.services(t.Context(), filepath.Join(filepath.Dir(path), "none")); got != nil {
		t.Errorf("got %v without a configuration", got)
	}
}

// A source of names that does not answer does not block the shell.
func TestCompletionIsBounded(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	defer close(end)
	got := within(time.Millisecond, func(context.Context) []string { <-end; return []string{"late"} })
	if got != nil {
		t.Errorf("got %v", got)
	}
}
