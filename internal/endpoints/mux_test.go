package endpoints

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A scripted source sends what the test makes it send.
type scripted struct{ sink chan discovery.Sink }

func (s scripted) Run(ctx context.Context, sink discovery.Sink) error {
	s.sink <- sink
	<-ctx.Done()
	return nil
}

// startScripted starts a source, and returns its input and a function that makes it send a set.
func startScripted(t *testing.T, in *Mux, services ...string) (*Input, func(service, id string)) {
	t.Helper()
	s := scripted{make(chan discovery.Sink, 1)}
	f := in.Start(s, services, hclog.NewNullLogger())
	t.Cleanup(f.Stop)
	sink := <-s.sink
	return f, func(service, id string) { sink.OnUpdate([]lb.Endpoints{setWith(service, id)}) }
}

func setWith(service, id string) lb.Endpoints {
	e := lb.Endpoint{ID: id, Addr: netip.MustParseAddrPort("10.0.0.1:80")}
	return lb.Endpoints{Service: service, Endpoints: []lb.Endpoint{e}}
}

// served returns the ID of the endpoint that the balancer picks, or the error.
func served(b *lb.RoundRobin, service string) string {
	m, err := b.NextEndpoint(service, netip.AddrPort{}, lb.Tried{})
	if err != nil {
		return err.Error()
	}
	defer m.Done()
	return m.ID
}

func serves(t *testing.T, b *lb.RoundRobin, service, want string) {
	t.Helper()
	if got := served(b, service); got != want {
		t.Errorf("%s: got %s, want %s", service, got, want)
	}
}

func TestMuxHandsServicesOver(t *testing.T) {
	b := lb.NewRoundRobin()
	in := NewMux(NewSets(b, NewEvents(), nil))
	old, sayOld := startScripted(t, in, "web", "gone")
	in.Commit([]string{"web", "gone"}, old)
	sayOld("web", "old")
	select {
	case <-in.ready:
		t.Error("ready without a set of gone")
	default:
	}
	sayOld("gone", "g")
	<-in.ready

	next, sayNext := startScripted(t, in, "web", "new")
	sayNext("web", "next")
	serves(t, b, "web", "old") // held until Commit
	sayNext("new", "n")
	serves(t, b, "new", "n") // not held, so that the new listener can serve at once
	<-next.FirstSets()
	<-next.AllSets()
	in.Commit([]string{"web", "new"}, next)
	serves(t, b, "web", "next")
	serves(t, b, "gone", "g") // for the remaining clients
	sayOld("web", "late")
	sayOld("gone", "late")
	serves(t, b, "web", "next")
	serves(t, b, "gone", "g")

	in.Commit([]string{"web", "new"}, next)
	serves(t, b, "gone", lb.ErrMissingServiceEntry.Error())
}

// Without services, a Mux is ready when that is in force.
func TestMuxWithoutServicesIsReady(t *testing.T) {
	in := NewMux(NewSets(lb.NewRoundRobin(), NewEvents(), nil))
	select {
	case <-in.Ready():
		t.Error("ready before Commit")
	default:
	}
	in.Commit(nil)
	<-in.Ready()
}

func TestMuxKeepsSetsUntilTheNewSourceAnswers(t *testing.T) {
	b := lb.NewRoundRobin()
	in := NewMux(NewSets(b, NewEvents(), nil))
	old, sayOld := startScripted(t, in, "web")
	in.Commit([]string{"web"}, old)
	sayOld("web", "1")
	next, sayNext := startScripted(t, in, "web")
	in.Commit([]string{"web"}, next)
	serves(t, b, "web", "1")
	sayOld("web", "2") // still used, because the new source has sent nothing
	serves(t, b, "web", "2")
	sayNext("web", "3")
	sayOld("web", "4")
	serves(t, b, "web", "3")
}

func TestMuxTakesBackWhatWasAbandoned(t *testing.T) {
	b := lb.NewRoundRobin()
	in := NewMux(NewSets(b, NewEvents(), nil))
	old, sayOld := startScripted(t, in, "web")
	in.Commit([]string{"web"}, old)
	sayOld("web", "1")
	next, sayNext := startScripted(t, in, "web", "new")
	sayNext("web", "2")
	sayNext("new", "n")
	in.Abort(next, nil)
	serves(t, b, "web", "1")
	serves(t, b, "new", lb.ErrMissingServiceEntry.Error())
	sayOld("web", "3")
	serves(t, b, "web", "3")
}

// When sources change and send the same set, the balancer keeps its position, and each endpoint gets its turn.
func TestMuxKeepsTheTurn(t *testing.T) {
	b := lb.NewRoundRobin()
	in := NewMux(NewSets(b, NewEvents(), nil))
	three := lb.Endpoints{Service: "web"}
	for i := range 3 {
		e := lb.Endpoint{ID: fmt.Sprint(i), Addr: netip.MustParseAddrPort("10.0.0.1:80")}
		three.Endpoints = append(three.Endpoints, e)
	}
	var got []string
	for range 3 {
		f := in.Start(discovery.NewStatic([]lb.Endpoints{three}), []string{"web"}, hclog.NewNullLogger())
		t.Cleanup(f.Stop)
		<-f.AllSets()
		in.Commit([]string{"web"}, f)
		e, err := b.NextEndpoint("web", netip.AddrPort{}, lb.Tried{})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.ID)
	}
	slices.Sort(got)
	if want := []string{"0", "1", "2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want each once", got)
	}
}

// Departures that were held back with a source's set are passed on after Commit.
func TestMuxKeepsWhoHasLeft(t *testing.T) {
	b := lb.NewRoundRobin()
	in := NewMux(NewSets(b, NewEvents(), nil))
	old, sayOld := startScripted(t, in, "web")
	in.Commit([]string{"web"}, old)
	sayOld("web", "a")
	m, err := b.NextEndpoint("web", netip.AddrPort{}, lb.Tried{})
	if err != nil {
		t.Fatal(err)
	}
	s := scripted{make(chan discovery.Sink, 1)}
	next := in.Start(s, []string{"web"}, hclog.NewNullLogger())
	t.Cleanup(next.Stop)
	sink := <-s.sink
	left := []lb.Departure{{Endpoint: m.Endpoint, Why: lb.Critical}}
	sink.OnUpdate([]lb.Endpoints{{Service: "web", Left: left}})
	sink.OnUpdate([]lb.Endpoints{{Service: "web"}})
	if m.Gone() != nil {
		t.Error("the departure was passed on before Commit")
	}
	in.Commit([]string{"web"}, next)
	if g := m.Gone(); g == nil || g.Why != lb.Critical {
		t.Errorf("got %v, want critical", g)
	}
}

// If the next reload extends a source's successor, the source retires without waiting for that reload's new services.
func TestMuxRetiresAFeedWhoseSuccessorIsExtended(t *testing.T) {
	in := NewMux(NewSets(lb.NewRoundRobin(), NewEvents(), nil))
	old, _ := startScripted(t, in, "web")
	in.Commit([]string{"web"}, old)
	next, sayNext := startScripted(t, in, "web")
	in.Commit([]string{"web"}, next)
	retire := old.Retirement(next)
	sayNext("web", "n")
	in.Extend(next, []string{"web", "new"}) // the source has nothing to send about new
	testproc.Returns(t, "the source retires, although its successor has sent nothing about the new service", retire)
}

// During a reload, a source's update of a removed service does not end the service's set, because clients still use it.
func TestMuxKeepsTheSetOfARemovedService(t *testing.T) {
	b := lb.NewRoundRobin()
	in := NewMux(NewSets(b, NewEvents(), nil))
	f, say := startScripted(t, in, "web", "gone")
	in.Commit([]string{"web", "gone"}, f)
	say("web", "w")
	say("gone", "g")

	in.Extend(f, []string{"web"})
	say("gone", "late")
	in.Commit([]string{"web"}, f)
	serves(t, b, "gone", "g")
	in.Commit([]string{"web"}, f)
	serves(t, b, "gone", lb.ErrMissingServiceEntry.Error())
}
