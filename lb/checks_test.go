package lb

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// checkedUDP returns a balancer with the services "web" and "api", which have the same three endpoints over UDP. B of
// "web" is checked, and enough checks have failed to eject B.
func checkedUDP(t *testing.T) (b *RoundRobin, checked *Member) {
	t.Helper()
	b = balanced(Options{Network: UDP}, named(1, 1, 1)...)
	b.Configure("api", Options{Network: UDP})
	b.OnUpdate([]Endpoints{{Service: "api", Endpoints: named(1, 1, 1)}})
	checked = member(t, b, "B")
	checked.Done()
	checked.health.beginChecks()
	checked.checkFailed(Unreachable, errUnfit)
	checked.checkFailed(Unreachable, errUnfit)
	if n := b.Ejected("web", named(1, 1, 1)); n != 1 {
		t.Fatalf("%d endpoints are ejected, want 1", n)
	}
	return b, checked
}

// picksOfB makes picks of both services for a while, and returns how many got B. No endpoint answers.
func picksOfB(t *testing.T, b *RoundRobin, during time.Duration) (n int) {
	t.Helper()
	for began := time.Now(); time.Since(began) < during; time.Sleep(100 * time.Millisecond) {
		for _, service := range []string{"web", "api"} {
			m, err := b.NextEndpoint(service, client, Tried{})
			if err != nil {
				t.Fatal(err)
			}
			if m.ID == "B" {
				n++
			}
			m.Done()
		}
	}
	return n
}

// If a UDP endpoint fails the check of one service, no service sends clients to it until it answers.
func TestFailedCheckOverUDPWaitsForAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, checked := checkedUDP(t)
		if n := picksOfB(t, b, 2*time.Minute); n != 0 {
			t.Errorf("%d picks of an endpoint whose check fails, want none", n)
		}
		checked.Reached()
		if n := picksOfB(t, b, 3*time.Second); n == 0 {
			t.Error("no picks of an endpoint that has answered")
		}
	})
}

// A check that fails during a trial ends the trial, because a failed check proves more than silence does.
func TestFailedCheckEndsATrialOverUDP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{Network: UDP}, named(1, 1, 1)...)
		checked := member(t, b, "B")
		checked.health.beginChecks()
		checked.Failed(Refused)
		checked.Done()
		time.Sleep(1200*time.Millisecond + 1)
		member(t, b, "B").Done() // tries it
		checked.checkFailed(Unreachable, errUnfit)
		if n := picks(t, b, 3); n != "ACA" && n != "CAC" {
			t.Errorf("got picks of %s, want none of B", n)
		}
		time.Sleep(time.Hour)
		if s := stateOf(b, "B"); s != StateEjected {
			t.Errorf("B is %v, want ejected", s)
		}
	})
}

// When checks end, for example at a reload, clients try the endpoint again.
func TestEndOfChecksOverUDP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, checked := checkedUDP(t)
		checked.health.endChecks()
		if n := picksOfB(t, b, 10*time.Second); n == 0 {
			t.Error("no picks of an endpoint that is no longer checked")
		}
	})
}

// Over UDP, silence ends an ejection, but the next ejection takes twice as long. An answer, or a long time without an
// ejection, resets the time.
func TestSilenceKeepsTheDoubling(t *testing.T) {
	ejectedFor := func(t *testing.T, b *RoundRobin) time.Duration {
		t.Helper()
		fails(t, b, "B", Refused)
		for _, e := range b.Snapshot()[0].Endpoints {
			if e.ID == "B" && e.State == StateEjected {
				return e.TryIn
			}
		}
		t.Fatal("B is not ejected")
		return 0
	}
	between := func(t *testing.T, got, want time.Duration) {
		t.Helper()
		if got < want*8/10 || got > want*12/10 {
			t.Errorf("ejected for %v, want %v", got, want)
		}
	}
	back := func(t *testing.T, b *RoundRobin) {
		t.Helper()
		time.Sleep(2 * maxEjection)
		member(t, b, "B").Done() // tries it
		time.Sleep(trialSilence)
		picks(t, b, 3)
		if s := stateOf(b, "B"); s != StateIn {
			t.Fatalf("B is %v, want in", s)
		}
	}
	for _, tt := range []struct {
		name    string
		happens func(b *RoundRobin)
		want    time.Duration
	}{
		{"silence", func(*RoundRobin) {}, 4 * time.Second},
		{"an answer", func(b *RoundRobin) { member(t, b, "B").Reached() }, time.Second},
		{"long service", func(*RoundRobin) { time.Sleep(forgetEjections + time.Second) }, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := balanced(Options{Network: UDP}, named(1, 1, 1)...)
				between(t, ejectedFor(t, b), time.Second)
				back(t, b)
				between(t, ejectedFor(t, b), 2*time.Second)
				back(t, b)
				tt.happens(b)
				between(t, ejectedFor(t, b), tt.want)
			})
		})
	}
}

// A new process also waits for an answer to the check, but only if it runs checks itself.
func TestFailedCheckIsHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, checks := range []bool{true, false} {
			old, _ := checkedUDP(t)
			b := NewRoundRobin()
			b.SetEjections(old.Ejections())
			for _, service := range []string{"web", "api"} {
				b.Configure(service, Options{Network: UDP})
				b.OnUpdate([]Endpoints{{Service: service, Endpoints: named(1, 1, 1)}})
			}
			if checks {
				v, _ := b.services.Load("web")
				v.(*group).state.Load().roster.byID()["B"].health.beginChecks()
			}
			if n := picksOfB(t, b, 10*time.Second); (n == 0) != checks {
				t.Errorf("checks %v: %d picks of B", checks, n)
			}
		}
	})
}

func listenUDP(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Once the check of a hung server has failed, the server gets no more clients.
func TestProberOverUDPOfAHungServer(t *testing.T) {
	hung, well := listenUDP(t), listenUDP(t)
	go func() {
		buf := make([]byte, 10)
		for {
			n, from, err := well.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = well.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	endpoints := []Endpoint{at("A", hung.LocalAddr()), at("B", well.LocalAddr())}
	b := balanced(Options{Network: UDP, MinAvailable: -1}, endpoints...)
	b.Configure("unchecked", Options{Network: UDP, MinAvailable: -1})
	b.OnUpdate([]Endpoints{{Service: "unchecked", Endpoints: endpoints}})
	p := NewProber(b)
	defer p.Close()
	p.Apply(map[string]Check{"web": {Interval: 5 * time.Millisecond, Timeout: 200 * time.Millisecond, Send: "ping"}})
	ejections := func() int64 {
		for _, s := range b.Snapshot() {
			if s.Service == "web" {
				return s.Ejections
			}
		}
		return 0
	}
	testproc.Await(t, "A is ejected", func() bool { return ejections() > 0 })
	testproc.Await(t, "A fails its check when its time is over", func() bool {
		for _, service := range []string{"web", "unchecked"} {
			m, err := b.NextEndpoint(service, client, Tried{})
			if err != nil {
				t.Fatal(err)
			}
			if m.ID == "A" {
				t.Fatalf("%s: a client got the server that hangs, after %d ejections", service, ejections())
			}
			m.Done()
		}
		return ejections() >= 3
	})
}
