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

// A scripted source says what the test has it say.
type scripted struct{ sink chan discovery.Sink }

func (s scripted) Run(ctx context.Context, sink discovery.Sink) error {
	s.sink <- sink
	<-ctx.Done()
	return nil
}

// startScripted starts a source, and returns its feed and what to have it say.
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

// served returns the ID of an endpoint that the balancer picks, or its error.
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
	serves(t, b, "web", "old") // held until commit
	sayNext("new", "n")
	serves(t, b, "new", "n") // not held: its listener can open with something to offer
	<-next.FirstSets()
	<-next.AllSets()
	in.Commit([]string{"web", "new"}, next)
	serves(t, b, "web", "next")
	serves(t, b, "gone", "g") // for clients that are still there
	sayOld("web", "late")
	sayOld("gone", "late")
	serves(t, b, "web", "next")
	serves(t, b, "gone", "g")

	in.Commit([]string{"web", "new"}, next)
	serves(t, b, "gone", lb.ErrMissingServiceEntry.Error())
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
	sayOld("web", "2") // still followed, for the new source is silent
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

// When sources change and send the same set, each endpoint still gets its turn.
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

// What was said of endpoints that left while a source was held back is not forgotten.
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
		t.Error("it has left before the commit")
	}
	in.Commit([]string{"web"}, next)
	if g := m.Gone(); g == nil || g.Why != lb.Critical {
		t.Errorf("got %v, want critical", g)
	}
}

// A source whose successor is extended by the next reload does not wait for the services that are new then.
func TestMuxRetiresAFeedWhoseSuccessorIsExtended(t *testing.T) {
	in := NewMux(NewSets(lb.NewRoundRobin(), NewEvents(), nil))
	old, _ := startScripted(t, in, "web")
	in.Commit([]string{"web"}, old)
	next, sayNext := startScripted(t, in, "web")
	in.Commit([]string{"web"}, next)
	retire := old.Retirement(next)
	sayNext("web", "n")
	in.Extend(next, []string{"web", "new"}) // of which there is nothing to say
	testproc.Returns(t, "the source retires, though its successor has not said anything about the new service", retire)
}

// What a source says, during a reload, of a service that the reload removes does not end its set: clients still finish.
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
