package admin

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os/user"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/endpoints"
)

// currentUser returns the name of the user that runs this test.
func currentUser(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

// A drain names the operator, the reason and the end: in the answer, in the service and in the events.
func TestADrainSaysByWhomWhyAndUntilWhen(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.endpoints("web", "n/1", "n/2")
	var answer DrainAnswer
	order := DrainRequest{Endpoint: "n/1", For: "10m", Reason: " new disk "}
	if err := h.client.Post(t.Context(), "/v1/services/web/drain", order, &answer); err != nil {
		t.Fatal(err)
	}
	by := currentUser(t)
	if !answer.OK || answer.DrainedBy != by || answer.Until == nil {
		t.Errorf("got %+v, want drained by %s until some time", answer, by)
	}
	var web Service
	h.get("/v1/services/web", &web)
	e := web.Endpoints[0]
	if e.Reason != ReasonDrained || e.DrainedBy != by || e.DrainReason != "new disk" || e.Since == nil ||
		e.Until == nil || e.Until.Sub(*e.Since) != 10*time.Minute {
		t.Errorf("got %+v, want drained by %s for ten minutes", e, by)
	}
	var events EventsAnswer
	h.get("/v1/events?service=web&limit=1", &events)
	want := "n/1 gets no new clients for 10m0s; drained by " + by + ": new disk"
	if len(events.Events) != 1 || events.Events[0].Text != want {
		t.Errorf("got %+v, want %q", events.Events, want)
	}
	end := DrainRequest{Endpoint: "n/1", Reason: "repaired"}
	if err := h.client.Post(t.Context(), "/v1/services/web/undrain", end, nil); err != nil {
		t.Fatal(err)
	}
	h.get("/v1/events?service=web&limit=1", &events)
	if want := "n/1 gets clients again; undrained by " + by + ": repaired"; events.Events[0].Text != want {
		t.Errorf("got %q, want %q", events.Events[0].Text, want)
	}
}

// The last endpoint that gets clients is drained only by force. An endpoint that the balancer has ejected gets none.
func TestTheLastUsableEndpointIsAConflict(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.endpoints("web", "n/1", "n/2")
	h.o.State.Balanced = func() map[string]Balanced {
		return map[string]Balanced{"web": {Endpoints: []Endpoint{
			{ID: "n/1", State: StateOut, Reason: ReasonEjected},
			{ID: "n/2"},
		}}}
	}
	code, text := h.ask("POST", "/v1/services/web/drain", `{"endpoint":"n/2"}`)
	if code != http.StatusConflict || !strings.Contains(text, "no other endpoint of the service gets clients") ||
		!strings.Contains(text, "with force") {
		t.Errorf("got %d %s, want a conflict and what to do", code, text)
	}
	if code, text := h.ask("POST", "/v1/services/web/drain", `{"endpoint":"n/2","force":true}`); code != 200 {
		t.Errorf("by force: got %d %s", code, text)
	}
}

func TestDrainRequestsAreChecked(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.endpoints("web", "n/1", "n/2")
	for _, tt := range []struct {
		action, body string
		code         int
		text         string
	}{
		{"drain", `{"endpoint":"n/1","for":"soon"}`, 400, `for=\"soon\" is not a duration above zero`},
		{"drain", `{"endpoint":"n/1","for":"-10m"}`, 400, "is not a duration above zero"},
		{"drain", `{"endpoint":"n/1","reason":"a\nb"}`, 400, "reason must be one line"},
		{"drain", `{"endpoint":"n/1","reason":"` + strings.Repeat("x", maxReason+1) + `"}`, 400, "reason is too long"},
		{"drain", `{"endpoint":"n/1","user":"` + strings.Repeat("x", maxUser+1) + `"}`, 400, "user is too long"},
		{"drain", `{"endpoint":"n/1","until":"x"}`, 400, "unknown field"},
		{"drain", `{"endpoint":"n/9"}`, 404, "no endpoint"},
		{"undrain", `{"endpoint":"n/1","for":"10m"}`, 400, "for a drain only"},
		{"undrain", `{"endpoint":"n/1"}`, 404, "is not drained"},
	} {
		if code, text := h.ask("POST", "/v1/services/web/"+tt.action, tt.body); code != tt.code ||
			!strings.Contains(text, tt.text) {
			t.Errorf("%s %.80s: got %d %s, want %d and %q", tt.action, tt.body, code, text, tt.code, tt.text)
		}
	}
}

// Over TCP, the operator is whoever the request names, at the client's address. A browser's request is from the page.
func TestUserOverTCP(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.endpoints("web", "n/1", "n/2")
	for _, tt := range []struct {
		body, want string
		headers    []string
	}{
		{`{"endpoint":"n/1"}`, "127.0.0.1", nil},
		{`{"endpoint":"n/1","user":"alice"}`, "alice from 127.0.0.1", nil},
		{`{"endpoint":"n/1"}`, "bob from 127.0.0.1", []string{"Authorization: Basic Ym9iOnNlc2FtZQ=="}},
		{`{"endpoint":"n/1"}`, "page from 127.0.0.1", []string{"Origin: http://SELF"}},
	} {
		if code, text := h.ask("POST", "/v1/services/web/drain", tt.body, tt.headers...); code != 200 ||
			!strings.Contains(text, `"drained_by":"`+tt.want+`"`) {
			t.Errorf("%s %s: got %d %s, want %q", tt.body, tt.headers, code, text, tt.want)
		}
	}
}

// Only root may act for another user.
func TestUserActsForAnother(t *testing.T) {
	for _, tt := range []struct {
		name, claimed string
		isRoot        bool
		want          string
	}{
		{"root", "alice", true, "alice as root"},
		{"root", "root", true, "root"},
		{"root", "", true, "root"},
		{"bob", "alice", false, "bob"},
	} {
		if got := actingFor(tt.name, tt.claimed, tt.isRoot); got != tt.want {
			t.Errorf("%s for %q: got %q, want %q", tt.name, tt.claimed, got, tt.want)
		}
	}
}

// A lookup of a user that hangs delays no drain for longer than userTime.
func TestALookupOfAUserThatHangs(t *testing.T) {
	s := New(Options{State: State{}, Events: endpoints.NewEvents()})
	s.naming <- struct{}{} // as if a lookup was under way
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := s.userName(ctx, 12345); got != "user 12345" {
		t.Errorf("got %q, want the ID", got)
	}
	<-s.naming
	if got := s.userName(t.Context(), 4_000_000_000); got != "user 4000000000" {
		t.Errorf("a user without a name: got %q", got)
	}
}

// A request without a connection of a listener has only the user that it names.
func TestUserWithoutAConnection(t *testing.T) {
	s := New(Options{Events: endpoints.NewEvents()})
	r := httptest.NewRequest("POST", "/", nil)
	if got := s.userOf(r, "alice"); got != "alice" {
		t.Errorf("got %q, want alice", got)
	}
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	r = r.WithContext(context.WithValue(r.Context(), connKey{}, &slotConn{Conn: a}))
	if got := s.userOf(r, "alice"); got != "alice" {
		t.Errorf("of a system without credentials: got %q, want alice", got)
	}
}
