package healthcheck

import (
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// fit reports whether the Checker calls the endpoint of m fit.
func (j *judged) fit(m *member, id string) bool {
	return len(j.Fit("db", []lb.Endpoint{m.endpoint(id)})) == 1
}

func (j *judged) awaitFit(t *testing.T, m *member, id string, want bool) {
	t.Helper()
	testproc.Await(t, id+" fits or not", func() bool { return j.fit(m, id) == want })
}

// An endpoint is fit until it fails a check, inside and outside the set.
func TestFit(t *testing.T) {
	good, bad := startMember(t, 200), startMember(t, 503)
	j := newJudged(t, Check{})
	if !j.fit(good, "a") || !j.fit(bad, "b") {
		t.Error("an endpoint that was never checked is not fit")
	}
	j.replace(good.endpoint("a"), bad.endpoint("b"))
	j.awaitFit(t, bad, "b", false)
	if !j.fit(good, "a") {
		t.Error("an endpoint that passes its check is not fit")
	}
	if !j.fit(good, "b") {
		t.Error("an endpoint is judged by what was at another address")
	}
	if got := j.Fit("other", []lb.Endpoint{bad.endpoint("b")}); len(got) != 1 {
		t.Error("an endpoint of a service without a check is not fit")
	}
}

// A standby endpoint is unfit until it passes a check, and is in no verdict. When it returns to the set, its results
// still apply.
func TestStandbyIsCheckedApartFromTheSet(t *testing.T) {
	left, used := startMember(t, 503), startMember(t, 200)
	j := newJudged(t, Check{})
	j.replace(left.endpoint("a"))
	j.awaitOut(t, "a", "status 503")
	j.replace(used.endpoint("b"))
	j.awaitIn(t, "b")
	j.Standby("db", []lb.Endpoint{left.endpoint("a")})
	if j.fit(left, "a") {
		t.Error("an endpoint that has just failed is fit")
	}
	left.await(t)
	if j.fit(left, "a") || j.out("a") != "" {
		t.Errorf("fit: %v, verdict %q; want neither", j.fit(left, "a"), j.out("a"))
	}
	left.status.Store(200)
	j.awaitFit(t, left, "a", true)
	j.replace(left.endpoint("a"))
	if why := j.out("a"); why != "" {
		t.Errorf("back in the set, it gets no clients: %s", why)
	}
	j.Standby("db", nil)
	left.await(t) // as a member of the set it is still checked
	j.replace(used.endpoint("b"))
	before := left.asked.Load()
	used.await(t)
	if asked := left.asked.Load(); asked > before+1 {
		t.Errorf("asked %d times after it has left", asked-before)
	}
}

// A check that a reload adds or changes also applies to standby endpoints.
func TestStandbyFollowsTheCheck(t *testing.T) {
	m := startMember(t, 503)
	j := newJudged(t, Check{})
	check := Check{Path: "/primary", Interval: 5 * time.Millisecond, Timeout: testproc.Patience}
	j.Apply(nil)
	j.Standby("db", []lb.Endpoint{m.endpoint("a")})
	if !j.fit(m, "a") || m.asked.Load() != 0 {
		t.Error("without a check it is checked")
	}
	j.Apply(map[string]Check{"db": check})
	j.awaitFit(t, m, "a", false)
	m.status.Store(200)
	j.awaitFit(t, m, "a", true)
	check.MaxSilence = time.Hour
	j.Apply(map[string]Check{"db": check})
	m.await(t)
	if !j.fit(m, "a") {
		t.Error("a changed check forgets what is known")
	}
}

// Hurry does not wait for the end of the interval.
func TestHurry(t *testing.T) {
	m := startMember(t, 200)
	j := newJudged(t, Check{})
	j.Apply(map[string]Check{"db": {Path: "/primary", Interval: time.Hour, Timeout: testproc.Patience}})
	j.replace(m.endpoint("a"))
	testproc.Await(t, "a first check", func() bool { return m.asked.Load() == 1 })
	m.status.Store(503)
	j.Hurry("db", "unknown")
	j.Hurry("other", "a")
	j.Hurry("db", "a")
	j.awaitOut(t, "a", "status 503")
}
