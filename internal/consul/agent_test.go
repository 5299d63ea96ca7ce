package consul

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// startAgent starts a real Consul. Without a Consul program the test is skipped, or fails in CI.
func startAgent(t *testing.T, o testconsul.Options) *testconsul.Agent {
	t.Helper()
	o.Binary, o.Dir = testconsul.Need(t), t.TempDir()
	a, err := testconsul.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Kill)
	return a
}

// startClient returns a client for o. The client's connections are closed when the test ends.
func startClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantStatus checks that err is an answer with this status.
func wantStatus(t *testing.T, what string, err error, code int) {
	t.Helper()
	var status *StatusError
	if !errors.As(err, &status) || status.Code != code {
		t.Errorf("%s: %v, want an answer with the status %d", what, err, code)
	}
}

func TestRealAgentRegistersAService(t *testing.T) {
	t.Parallel()
	a := startAgent(t, testconsul.Options{Unix: true, ACL: true})
	ctx := t.Context()
	c := startClient(t, Options{Address: "unix://" + a.Socket, Token: a.Token})
	reader, err := a.Client()
	must(t, err)
	service := &api.AgentServiceRegistration{
		ID: "a/1", Name: "web", Port: 80,
		Check: &api.AgentServiceCheck{CheckID: "web ready", TTL: "10m", Status: api.HealthCritical},
	}
	wantStatus(t, "an unknown service", c.FindService(ctx, "a/1"), http.StatusNotFound)
	wantStatus(t, "an unknown check", c.UpdateCheck(ctx, "web ready", api.HealthPassing, ""), http.StatusNotFound)

	must(t, c.Register(ctx, service))
	must(t, c.FindService(ctx, "a/1"))
	must(t, c.UpdateCheck(ctx, "web ready", api.HealthPassing, "all is well"))
	if got, _, err := reader.Agent().AgentHealthServiceByID("a/1"); err != nil || got != api.HealthPassing {
		t.Errorf("the service is %s, %v, want passing", got, err)
	}
	must(t, c.EnterMaintenance(ctx, "a/1", "about to end"))
	maintained := func() bool {
		checks, err := reader.Agent().Checks()
		must(t, err)
		check := checks[api.ServiceMaintPrefix+"a/1"]
		return check != nil && check.Notes == "about to end"
	}
	if !maintained() {
		t.Error("the service is not in maintenance")
	}
	must(t, c.LeaveMaintenance(ctx, "a/1"))
	if maintained() {
		t.Error("the service is still in maintenance")
	}

	service.Check.CheckID = "web ready 2"
	must(t, c.Register(ctx, service))
	checks, err := reader.Agent().Checks()
	must(t, err)
	if checks["web ready"] != nil || checks["web ready 2"] == nil {
		t.Errorf("the agent has the checks %v, want web ready 2 only", checks)
	}
	must(t, c.Deregister(ctx, "a/1"))
	wantStatus(t, "a service that was deregistered", c.FindService(ctx, "a/1"), http.StatusNotFound)

	anonymous := startClient(t, Options{Address: a.HTTP})
	err = anonymous.Register(ctx, service)
	wantStatus(t, "no token", err, http.StatusForbidden)
	if KindOf(err) != Denied || strings.Contains(err.Error(), a.Token) {
		t.Errorf("no token: %v is of kind %d, want %d", err, KindOf(err), Denied)
	}
}
