package healthcheck

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// handOver returns the Results of j as another process receives them.
func (j *judged) handOver(t *testing.T) (all []Result) {
	t.Helper()
	text, err := json.Marshal(j.Results())
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The results of a former process apply until the first check.
func TestResultsAreHandedOn(t *testing.T) {
	silent, replica, moved := startMember(t, 200), startMember(t, 503), startMember(t, 503)
	check := Check{MaxSilence: time.Hour}
	old := newJudged(t, check)
	old.replace(silent.endpoint("a"), replica.endpoint("b"), moved.endpoint("c"))
	old.awaitOut(t, "b", "status 503")
	old.awaitOut(t, "c", "status 503")
	silent.await(t)
	silent.status.Store(0)
	results := old.handOver(t)
	if len(results) != 3 {
		t.Fatalf("got %+v, want three results", results)
	}
	old.Close()

	next := newJudged(t, check)
	next.Apply(nil)
	next.SetResults(results)
	slow := Check{Path: "/primary", Interval: 5 * time.Millisecond, Timeout: testproc.Patience, MaxSilence: time.Hour}
	next.Apply(map[string]Check{"db": slow})
	if next.fit(replica, "b") || !next.fit(silent, "a") || !next.fit(silent, "b") {
		t.Error("an endpoint that is not in the set yet is not judged by what is known")
	}
	replica.status.Store(0) // no answer changes what is known
	next.replace(silent.endpoint("a"), replica.endpoint("b"), silent.endpoint("c"))
	if why := next.out("b"); why == "" {
		t.Error("b gets clients before its first check")
	}
	if why := next.out("c"); why != "" {
		t.Errorf("c is judged by what was at another address: %s", why)
	}
	silent.await(t) // a still has no answer
	silent.await(t)
	if why := next.out("a"); why != "" {
		t.Errorf("a has passed a moment ago, and gets no clients: %s", why)
	}
	replica.status.Store(200)
	next.awaitIn(t, "b")
}

// A result of a former process is used once.
func TestResultsAreForgotten(t *testing.T) {
	m := startMember(t, 503)
	j := newJudged(t, Check{})
	j.SetResults([]Result{{Service: "db", Endpoint: m.endpoint("a"), Failure: "of old"}})
	m.status.Store(200)
	j.SetResults(nil)
	j.replace(m.endpoint("a"))
	j.awaitIn(t, "a")
	j.replace()
	j.replace(m.endpoint("a"))
	if why := j.out("a"); why != "" && why != notChecked {
		t.Errorf("got %q", why)
	}
}
