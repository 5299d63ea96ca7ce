package discovery

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// watchesOf makes Watches from texts. "one=web" is service one with the query for web; "web" is short for "web=web".
func watchesOf(texts ...string) []Watch {
	var all []Watch
	for _, text := range texts {
		service, of, _ := strings.Cut(text, "=")
		all = append(all, Watch{Service: service, Query: Query{Service: of}})
	}
	return all
}

func TestApplyKeepsWhatStaysAndSaysWhatGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{"web": {ok(20, "a 80")}, "db": {ok(30, "b 81")}, "new": {ok(40, "c 82")}}}
		r := start(t, f, ConsulOptions{Watches: watchesOf("web", "db")})
		apply := func(texts ...string) {
			t.Helper()
			if err := r.consul.Apply(watchesOf(texts...)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		r.want(t, webA, "db: n/b=10.0.0.1:81")
		before := len(f.asks())

		apply("db", "web")
		if n := len(f.asks()); n != before || r.calls != 2 {
			t.Errorf("%d queries and %d updates after nothing changed, want %d and 2", n, r.calls, before)
		}
		apply("web", "new", "same=web")
		r.want(t, webA, "db: n/b=10.0.0.1:81", "same: n/a=10.0.0.1:80", "db: removed", "new: n/c=10.0.0.1:82")
		if n := len(r.consul.Snapshot()); n != 2 {
			t.Errorf("%d watches, want 2", n)
		}
		asked := map[string]int{}
		for _, a := range f.asks() {
			asked[a.service]++
		}
		if asked["web"] != 2 || asked["db"] != 2 || asked["new"] != 2 {
			t.Errorf("queries %v, want 2 of each", asked)
		}
		apply()
		lines := r.got()[5:]
		slices.Sort(lines)
		if got := fmt.Sprint(lines); got != "[new: removed same: removed web: removed]" {
			t.Errorf("got %s", got)
		}
		apply("web")
		if got := r.got(); len(got) != 8 { // the script is over, so Consul does not answer
			t.Errorf("got %v", got)
		}
		r.stop()
		if err := r.consul.Apply(nil); err == nil {
			t.Error("Apply succeeds after the end of Run")
		}
	})
}

// When the query of a service changes, the service keeps its endpoints until Consul has answered the new query.
func TestApplyOfAnotherQueryKeepsTheSetUntilItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{"web": {ok(20, "a 80")}, "web2": {after(5*time.Second, ok(30, "b 81"))}}}
		r := start(t, f, ConsulOptions{})
		time.Sleep(time.Second)
		if err := r.consul.Apply(watchesOf("web=web2")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		r.want(t, webA)
		time.Sleep(10 * time.Second)
		r.want(t, webA, webB)
		r.stop()
	})
}

func TestApplyOfWhatIsWrongChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{"web": {ok(20, "a 80"), after(3*time.Second, ok(21, "b 81"))}}}
		r := start(t, f, ConsulOptions{})
		time.Sleep(time.Second)
		if err := r.consul.Apply(watchesOf("x", "y", "x")); err == nil {
			t.Error("two watches for one service")
		}
		time.Sleep(5 * time.Second)
		r.want(t, webA, webB)
		r.stop()
	})
}

// The log has one line for an outage and one for its end, even if watches come and go during the outage.
func TestApplyDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := status(500, "No cluster leader")
		f := &fake{always: down}
		r := start(t, f, ConsulOptions{Watches: watchesOf("web", "db")})
		time.Sleep(30 * time.Second)
		if err := r.consul.Apply(watchesOf("db", "new")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		f.mu.Lock()
		f.always, f.script = nil, map[string][]reply{"web": {ok(1, "x 1")}, "db": {ok(30, "b 81")},
			"new": {ok(40, "c 82")}}
		f.mu.Unlock()
		time.Sleep(30 * time.Second)
		r.log.wantOnce(t, "consul cannot be reached", "consul answers again")
		got := r.got()
		slices.Sort(got)
		if want := []string{"db: n/b=10.0.0.1:81", "new: n/c=10.0.0.1:82", "web: removed"}; !slices.Equal(got, want) {
			t.Errorf("published %q, want %q", got, want)
		}
		r.stop()
	})
}

// While Apply and answers come at the same time, no two updates of one service are concurrent, and no update follows
// the service's removal.
func TestApplyWhileAnswersCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{always: ok(7, "a 80")}
		r := start(t, f, ConsulOptions{Watches: watchesOf("web")})
		for i := range 300 {
			texts := []string{"web", fmt.Sprint("s=", i%7), fmt.Sprint("t=", i%3), fmt.Sprint("u", i%5)}
			if err := r.consul.Apply(watchesOf(texts[:1+i%4]...)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(i%3) * time.Millisecond)
		}
		if err := r.consul.Apply(nil); err != nil {
			t.Fatal(err)
		}
		got := len(r.got())
		time.Sleep(time.Minute)
		if n := len(r.got()); n != got {
			t.Errorf("%q was sent after all services were removed", r.got()[got:])
		}
		r.stop()
		if r.turnstile.broken != "" {
			t.Errorf("two updates of %s at once", r.turnstile.broken)
		}
	})
}

// A turnstile notices two concurrent updates of one service.
type turnstile struct {
	mu     sync.Mutex
	inside map[string]bool
	broken string
}

func (s *turnstile) enter(updates []lb.Endpoints) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inside == nil {
		s.inside = map[string]bool{}
	}
	for _, u := range updates {
		if s.inside[u.Service] {
			s.broken = u.Service
		}
		s.inside[u.Service] = true
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, u := range updates {
			delete(s.inside, u.Service)
		}
	}
}
