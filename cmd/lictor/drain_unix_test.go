//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"os/user"
	"slices"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/admin"
)

// twoStatic is a service with two static endpoints.
func twoStatic(name, a, b string) string {
	const text = "service %q {\n  listen = \"127.0.0.1:0\"\n  static {\n    endpoints = [%q, %q]\n  }\n}\n"
	return fmt.Sprintf(text, name, a, b)
}

// Operators drain and undrain endpoints. The events name the user and the reason.
func TestDrainOfARunningLictor(t *testing.T) {
	a, b := echo(t), echo(t)
	startLictor(t, twoStatic("web", a, b))
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	out, said := lictor(t, exitOK, "drain", a, "-reason", "new disk")
	equal(t, out+said, fmt.Sprintf("drained %s of service \"web\"; its connections continue\n", a))
	prints(t, []string{"status", "web"}, "drained by "+me.Username, "new disk")

	out, said = lictor(t, exitFailed, "drain", "web", b)
	if out != "" || !strings.Contains(said, "no other endpoint of the service gets clients") ||
		!strings.Contains(said, "\nAdd -force to drain it all the same\n") {
		t.Errorf("got %q, %q", out, said)
	}
	var answer admin.DrainAnswer
	out, _ = lictor(t, exitOK, "drain", "-json", "-force", "-for", "1h", "web", b)
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.DrainedBy != me.Username ||
		answer.Until == nil {
		t.Errorf("got %+v, %v", answer, err)
	}
	prints(t, []string{"undrain", "-reason", "disk is in", a}, fmt.Sprintf("undrained %s of service \"web\"\n", a))
	out, said = lictor(t, exitFailed, "undrain", a)
	equal(t, out+said, fmt.Sprintf("lictor undrain: endpoint %q of service \"web\" is not drained\n", a))
	prints(t, []string{"events"}, "drained    web", "drained by "+me.Username, "new disk", "disk is in")
}

// An endpoint of several services needs the service, unless only one of them has it drained.
func TestDrainOfAnEndpointOfSeveralServices(t *testing.T) {
	a, b := echo(t), echo(t)
	startLictor(t, twoStatic("api", a, b)+twoStatic("web", a, b))
	out, said := lictor(t, exitFailed, "drain", a)
	equal(t, out+said, fmt.Sprintf(
		"lictor drain: 2 services have the endpoint %q (api, web): name one of them before the endpoint\n", a))
	lictor(t, exitOK, "drain", "web", a)
	prints(t, []string{"undrain", a}, `of service "web"`)
	out, said = lictor(t, exitFailed, "drain", "wbe", a)
	if out != "" || !strings.Contains(said, `did you mean "web"?`) {
		t.Errorf("got %q, %q", out, said)
	}
}

// Names are found by ID and by address, and similar ones are suggested.
func TestDrainOfAnUnknownEndpoint(t *testing.T) {
	t.Parallel()
	web := admin.Service{Name: "web", Endpoints: []admin.Endpoint{
		{ID: "n1/web-1", Address: "10.0.0.1:80", Reason: admin.ReasonDrained}, {ID: "n1/web-2", Address: "10.0.0.2:80"},
	}}
	f := newFakeLictor(t, map[string]any{
		"GET /v1/status": admin.Status{}, "GET /v1/services/web": web,
		"GET /v1/services":              admin.ServicesAnswer{Services: []admin.Service{web, {Name: "none"}}},
		"POST /v1/services/web/drain":   admin.DrainAnswer{OK: true},
		"POST /v1/services/web/undrain": admin.DrainAnswer{OK: true},
	})
	for args, want := range map[string]string{
		"n1/web-3":     `no service has an endpoint "n1/web-3"; did you mean "n1/web-1"?`,
		"web n1/web-3": `service "web" has no endpoint "n1/web-3"; did you mean "n1/web-1"?`,
		"nothing":      `no service has an endpoint "nothing"`,
	} {
		out, said := lictor(t, exitFailed, append([]string{"drain", "-admin", f.address}, strings.Fields(args)...)...)
		equal(t, out+said, "lictor drain: "+want+"\n")
	}
	prints(t, []string{"drain", "-admin", f.address, "10.0.0.2:80"}, "drained n1/web-2 of service")
	prints(t, []string{"undrain", "-admin", f.address, "web", "n1/web-1"}, "undrained n1/web-1 of service")

	drain, undrain := newDrainCommand(console{}).AutocompleteArgs(), newUndrainCommand(console{}).AutocompleteArgs()
	ask := "-admin " + f.address + " "
	equal(t, completed(drain, ask), "n1/web-2 web")
	equal(t, completed(drain, ask+"web"), "n1/web-2")
	equal(t, completed(drain, ask+"web n1/web-2"), "")
	equal(t, completed(undrain, ask), "n1/web-1 web")
	if got := f.requests(); !slices.Contains(got, "POST /v1/services/web/undrain") {
		t.Errorf("got %q", got)
	}
}
