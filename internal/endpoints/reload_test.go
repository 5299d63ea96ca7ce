package endpoints

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// open reports whether a channel is not closed.
func open(c <-chan struct{}) bool {
	select {
	case <-c:
		return false
	default:
		return true
	}
}

// A house is a Mux with one input in force, for the service web, and a balancer.
type house struct {
	*testing.T
	*Mux
	balancer *lb.RoundRobin
	input    *Input
	say      func(service, id string)
}

func newHouse(t *testing.T) *house {
	h := &house{T: t, balancer: lb.NewRoundRobin()}
	h.Mux = NewMux(NewSets(h.balancer, NewEvents(), nil))
	h.input, h.say = startScripted(t, h.Mux, "web", "old")
	h.Commit([]string{"web", "old"}, h.input)
	h.say("web", "1")
	h.say("old", "1")
	return h
}

func (h *house) serves(service, want string) {
	h.Helper()
	serves(h.T, h.balancer, service, want)
}

const nothing = "the endpoints of this service are not known yet"

func TestAnExtendedInputHoldsSetsBackUntilCommit(t *testing.T) {
	h := newHouse(t)
	h.Extend(h.input, []string{"web", "new"})
	if first, all := h.input.FirstSets(), h.input.AllSets(); !open(first) || !open(all) {
		t.Error("there is no set of new yet")
	}
	h.say("web", "2")
	h.serves("web", "1")
	h.say("new", "2")
	h.serves("new", "2")
	if open(h.input.FirstSets()) || open(h.input.AllSets()) {
		t.Error("there are sets of all services")
	}
	h.Commit([]string{"web", "new"}, h.input)
	h.serves("web", "2")
	h.serves("old", "1")
	h.say("web", "3")
	h.serves("web", "3")
	h.say("old", "3") // an endpoint that is gone
	h.serves("old", "1")
}

func TestAbortUndoesExtend(t *testing.T) {
	h := newHouse(t)
	h.Extend(h.input, []string{"web", "new", "silent"})
	h.say("new", "2")
	h.say("web", "2")
	h.say("old", "2") // from a query that the reload would have changed
	h.Abort(h.input, map[string]bool{"old": true})
	h.serves("new", nothing)
	h.serves("web", "2")
	h.serves("old", "1")
	if open(h.input.FirstSets()) || open(h.input.AllSets()) {
		t.Error("a set is waited for of a service that the input does not speak for")
	}
	h.say("new", "3")
	h.serves("new", nothing)
	h.say("old", "3")
	h.serves("old", "3")
}

// Extending an input by nothing new leaves it complete.
func TestExtendByNothingNew(t *testing.T) {
	h := newHouse(t)
	h.Extend(h.input, []string{"web", "old"})
	if open(h.input.FirstSets()) || open(h.input.AllSets()) {
		t.Error("all services have sets already")
	}
}

func TestReadyNeedsASourcesWord(t *testing.T) {
	b := lb.NewRoundRobin()
	s := NewSets(b, NewEvents(), nil)
	s.Import([]lb.Endpoints{setWith("web", "saved")}, nil)
	m := NewMux(s)
	in, say := startScripted(t, m, "web", "dns")
	say("dns", "d") // before the first Commit
	m.Commit([]string{"web"}, in)
	m.Commit([]string{"web", "dns"}, in)
	serves(t, b, "web", "saved")
	if !open(m.Ready()) {
		t.Error("ready with a set of web that no source has sent")
	}
	say("dns", "d")
	say("dns", "e")
	if !open(m.Ready()) {
		t.Error("ready without a source's set of web")
	}
	say("web", "w")
	if open(m.Ready()) {
		t.Error("not ready, though all services have had sets")
	}
}

// The input that was started or extended last speaks for a service, even if older inputs send sets.
func TestTheNewestInputSpeaks(t *testing.T) {
	h := newHouse(t)
	next, sayNext := startScripted(t, h.Mux, "web")
	h.Commit([]string{"web", "old"}, next)
	sayNext("web", "2")
	h.say("web", "late")
	h.serves("web", "2")
	h.Extend(h.input, []string{"web"}) // a reload returns to this input
	h.Commit([]string{"web", "old"}, h.input)
	h.say("web", "3")
	sayNext("web", "late")
	h.serves("web", "3")
}

// A broken source does not start.
type broken struct{}

func (broken) Run(context.Context, discovery.Sink) error { return errors.New("broken") }

func TestRetirementWaitsForTheSuccessor(t *testing.T) {
	h := newHouse(t)
	next, sayNext := startScripted(t, h.Mux, "web", "old")
	h.Commit([]string{"web", "old"}, next)
	retire := h.input.Retirement(next)
	retired := make(chan struct{})
	go func() {
		defer close(retired)
		retire()
	}()
	sayNext("web", "2")
	h.say("old", "2")
	h.serves("old", "2") // while its successor has sent no set
	sayNext("old", "3")
	testproc.Receive(t, "the source retires when its successor has said all", retired)
	<-h.input.Ended()

	failed := h.Start(broken{}, []string{"web"}, hclog.NewNullLogger())
	testproc.Returns(t, "a source retires for a successor that has failed", next.Retirement(failed))
	<-next.Ended()
	alone, _ := startScripted(t, h.Mux, "web")
	alone.Retirement(nil)()
	<-alone.Ended()
}
