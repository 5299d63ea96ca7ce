package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// newFollowing returns a Store that follows a scripted agent, with the identity "web". The agent gives both.
func newFollowing(t *testing.T, report func(Report)) (*scriptedAgent, *testcert.Authority, *Identity) {
	t.Helper()
	a, ca := newScriptedAgent(t), testcert.NewAuthority(t, "ca")
	a.say(rootsPath, said{body: rootsJSON(domain, ca), index: 5})
	a.say(leafPath+"web", said{body: leafJSON(certificateOf(t, ca, "web")), index: 6})
	s := NewStore(Options{Consul: a.client(t), Report: report})
	web := s.Use("web", "billing")
	run(t, s)
	awaitReady(t, web)
	return a, ca, web
}

func TestNewCertificatesAndAuthoritiesAreUsed(t *testing.T) {
	a, ca, web := newFollowing(t, nil)
	first := web.current.Load()
	a.say(leafPath+"web", said{body: leafJSON(certificateOf(t, ca, "web")), index: 7})
	testproc.Await(t, "the new certificate", func() bool { return web.current.Load().leaf != first.leaf })
	a.say(rootsPath, said{body: rootsJSON(domain, testcert.NewAuthority(t, "ca2"), ca), index: 8})
	testproc.Await(t, "the new authorities", func() bool { return len(web.current.Load().roots.all) == 2 })
}

// What cannot be used changes nothing, and shows in the State. After that, a good answer is used.
func TestBadAnswersChangeNothing(t *testing.T) {
	ca, other := testcert.NewAuthority(t, "ca"), testcert.NewAuthority(t, "other")
	good, stock := certificateOf(t, ca, "web"), certificateOf(t, ca, "stock")
	mixed := testcert.Certificate{Cert: good.Cert, Key: certificateOf(t, ca, "web").Key}
	two := ca.Issue(t, testcert.Request{URIs: []string{idOf("web"), idOf("web")}})
	for _, tt := range []struct {
		name, path, body string
		status           int
		want             string // in the error
	}{
		{"no authority", rootsPath, rootsJSON(domain), 0, "it has no authority"},
		{"no trust domain", rootsPath, rootsJSON("", other), 0, "it has no trust domain"},
		{"null", rootsPath, "null", 0, "it has no trust domain"},
		{"an authority that is none", rootsPath, strings.Replace(rootsJSON(domain, other), "BEGIN", "BEG", 1), 0,
			`authority "id-0": no certificate in PEM form`},
		{"no JSON", rootsPath, "<html>", 0, "it is not the JSON that was asked for"},
		{"an error", rootsPath, "no leader", 500, "consul answered 500: no leader"},
		{"an answer without end", rootsPath, `"` + strings.Repeat("x", maxAnswer) + `"`, 0, "bytes"},
		{"another key", leafPath + "web", leafJSON(mixed), 0, "private key does not match public key"},
		{"another identity", leafPath + "web", leafJSON(stock), 0, `its certificate is for "` + idOf("stock")},
		{"two identities", leafPath + "web", leafJSON(two), 0, "2 URI names"},
		{"nothing", leafPath + "web", "{}", 0, "it has no certificate, or no key"},
		{"a null", leafPath + "web", "null", 0, "it has no certificate, or no key"},
		{"a key that is none", leafPath + "web",
			leafJSON(testcert.Certificate{Cert: good.Cert, Key: []byte("-----BEGIN secret")}), 0, "PEM"},
		{"half of the JSON", leafPath + "web", leafJSON(good)[:300], 0, "it is not the JSON that was asked for"},
		{"a right that was lost", leafPath + "web", "Permission denied: lacks service:write", 403,
			"403: Permission denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reports := make(chan Report, 100)
			a, ca, web := newFollowing(t, func(r Report) {
				if r.What == Failed || r.What == Works {
					reports <- r
				}
			})
			before := web.current.Load()
			a.say(tt.path, said{body: tt.body, index: 9, status: tt.status})
			state := func() (*State, error) {
				s := web.store.State()
				return &s, errors.Join(s.Err, s.Identities[0].Err)
			}
			testproc.Await(t, "an error", func() bool { _, err := state(); return err != nil })
			_, err := state()
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %q, want %q", err, tt.want)
			}
			if r := testproc.Receive(t, "a report", reports); r.What != Failed || r.Err == nil {
				t.Errorf("got %+v", r)
			}
			if web.current.Load() != before {
				t.Error("what was in use is not in use any more")
			}
			if tt.path == rootsPath {
				a.say(rootsPath, said{body: rootsJSON(domain, testcert.NewAuthority(t, "ca2"), ca), index: 10})
			} else {
				a.say(tt.path, said{body: leafJSON(certificateOf(t, ca, "web")), index: 10})
			}
			testproc.Await(t, "a good answer", func() bool { return web.current.Load() != before })
			if r := testproc.Receive(t, "a report", reports); r.What != Works {
				t.Errorf("got %+v", r)
			}
			if _, err := state(); err != nil {
				t.Errorf("the State still says %v", err)
			}
		})
	}
}

// The agent may answer with an old state after a restart. Lictor asks anew.
func TestIndexThatGoesBackIsAskedAnew(t *testing.T) {
	a, ca, web := newFollowing(t, nil)
	first := web.current.Load()
	a.say(leafPath+"web", said{body: leafJSON(certificateOf(t, ca, "web")), index: 2})
	testproc.Await(t, "the certificate of the restarted agent", func() bool { return web.current.Load() != first })
	second := web.current.Load()
	a.say(leafPath+"web", said{body: leafJSON(certificateOf(t, ca, "web")), index: 3})
	testproc.Await(t, "the next one", func() bool { return web.current.Load() != second })
}

// When the client moves to another agent, the questions that wait are asked anew there, without the index of the first
// agent. What the Store has stays in use.
func TestMoveAsksAnew(t *testing.T) {
	ca := testcert.NewAuthority(t, "ca")
	agents := []*scriptedAgent{newScriptedAgent(t), newScriptedAgent(t)}
	for i, a := range agents {
		a.issuer = ca
		a.say(rootsPath, said{body: rootsJSON(domain, ca), index: uint64(9000 - 1000*i)})
		a.say("/v1/catalog/datacenters", said{body: `["dc1"]`})
	}
	client, err := consul.New(consul.Options{Address: agents[0].server.URL, More: []string{agents[1].server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdle)
	ctx, cancel := context.WithCancel(context.Background())
	var moving sync.WaitGroup
	moving.Go(func() { client.Run(ctx) })
	t.Cleanup(func() { cancel(); moving.Wait() })
	store := NewStore(Options{Consul: client})
	run(t, store)
	web := store.Use("web", "web")
	awaitReady(t, web)

	client.Leave(errors.New("test"))
	testproc.Await(t, "questions to the other agent", func() bool {
		return agents[1].questions(rootsPath) >= 2 && agents[1].questions(leafPath+"web") >= 2
	})
	b := agents[1]
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.highest > 8000 {
		t.Errorf("the second agent got the index %d", b.highest)
	}
	if _, err := web.Config("10.0.0.1:1", "/ns/default/dc/dc1/svc/db", ""); err != nil {
		t.Errorf("the certificate is not in use any more: %v", err)
	}
}

func TestOneCertificateForEachIdentity(t *testing.T) {
	a, _, web := newFollowing(t, nil)
	testproc.Await(t, "the first certificate, and the question for the next one", func() bool {
		return a.questions(leafPath+"web") == 2
	})
	more := make([]*Identity, 10)
	for i := range more {
		more[i] = web.store.Use("web", fmt.Sprint("service-", i))
		if _, err := more[i].Config("127.0.0.1:1", billing, ""); err != nil {
			t.Error(err)
		}
	}
	if n := a.questions(leafPath + "web"); n != 2 {
		t.Errorf("%d questions, want 2", n)
	}
	for _, i := range more {
		i.Close()
	}
	follows := web.identity
	web.Close()
	if len(web.store.State().Identities) != 0 {
		t.Error("an identity without users is still there")
	}
	if follows.cancel == nil {
		t.Fatal("nothing followed the certificate")
	}
	if _, err := web.Config("127.0.0.1:1", billing, ""); err != nil {
		t.Errorf("the last certificate cannot be used after Close: %v", err)
	}
	again := web.store.Use("web", "billing")
	awaitReady(t, again)
}

// An agent allows a host 200 connections, and other programs need them too.
func TestPlainHTTPTakesFewConnections(t *testing.T) {
	a, ca := newScriptedAgent(t), testcert.NewAuthority(t, "ca")
	a.issuer = ca
	a.say(rootsPath, said{body: rootsJSON(domain, ca), index: 5})
	s := NewStore(Options{Consul: a.client(t)})
	var all []*Identity
	for i := range 60 {
		all = append(all, s.Use(fmt.Sprint("id-", i), "x"))
	}
	run(t, s)
	for _, i := range all {
		awaitReady(t, i)
	}
	testproc.Await(t, "some turns", func() bool {
		n := 0
		for _, i := range all {
			n += a.questions(leafPath + i.name)
		}
		return n > len(all)+2*maxTurns
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	if want := 1 + urgentWidth + maxTurns; a.most > want {
		t.Errorf("%d questions at once, each on a connection, want at most %d", a.most, want)
	}
}

// A scriptedSource is a source without a network, for tests in a bubble of synctest.
type scriptedSource struct {
	leaf  leaf
	rules func() *rules // nil: there are no intentions, and the default policy is to deny
	moves bool          // the index of intentions grows with each answer
	http  bool          // one question a connection

	mu    sync.Mutex
	ask   func(ctx context.Context, q question) error // what a question for a certificate does first
	asked []time.Duration                             // since the begin
	begun time.Time

	store   *Store // set by inBubble
	reports []What // Failed and Works, of identities
}

func (s *scriptedSource) multiplexes() bool { return !s.http }

func (s *scriptedSource) askRoots(ctx context.Context, q question) (roots, uint64, error) {
	<-ctx.Done()
	return roots{}, 0, context.Cause(ctx)
}

func (s *scriptedSource) askLeaf(ctx context.Context, _ string, q question) (leaf, uint64, error) {
	s.mu.Lock()
	s.asked = append(s.asked, time.Since(s.begun).Round(time.Millisecond))
	ask := s.ask
	s.mu.Unlock()
	return s.leaf, 1, ask(ctx, q)
}

func (s *scriptedSource) askIntentions(ctx context.Context, _ string, q question, _ *rules) (*rules, uint64, error) {
	s.mu.Lock()
	s.asked = append(s.asked, time.Since(s.begun).Round(time.Millisecond))
	ask, index := s.ask, uint64(1)
	if s.moves {
		index = uint64(len(s.asked))
	}
	s.mu.Unlock()
	r := newRules(nil, false)
	if s.rules != nil {
		r = s.rules()
	}
	return r, index, ask(ctx, q)
}

// inBubble runs a Store in a bubble for that long, and returns when questions for its certificates were asked.
func inBubble(t *testing.T, from *scriptedSource, identities int, d time.Duration) (times []time.Duration) {
	ca := testcert.NewAuthority(t, "ca")
	c := ca.Issue(t, testcert.Request{URIs: []string{idOf("web")}})
	var err error
	if from.leaf, err = newLeaf("web", c.Cert, c.Key, time.Now()); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		from.begun = time.Now()
		var mu sync.Mutex
		s := newStore(Options{Report: func(r Report) {
			mu.Lock()
			defer mu.Unlock()
			if r.Identity != "" && (r.What == Failed || r.What == Works) {
				from.reports = append(from.reports, r.What)
			}
		}}, from)
		from.store = s
		for i := range identities {
			s.Use(fmt.Sprint(i), "x")
		}
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		s.Run(ctx)
	})
	return from.asked
}

// waits is the answer of an agent that has nothing new.
func waits(ctx context.Context, q question) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(q.wait):
		return nil
	}
}

// A question that hangs ends at its deadline, and the next one follows (hashicorp/consul#12568).
func TestQuestionThatHangsEnds(t *testing.T) {
	n := 0
	from := &scriptedSource{}
	from.ask = func(ctx context.Context, q question) error {
		if n++; n%2 == 0 { // each second one
			return waits(ctx, q)
		}
		<-ctx.Done()
		return ctx.Err()
	}
	times := inBubble(t, from, 1, 3*time.Minute)
	longest := longestWait + longestWait/10 + longestWait/8 + consul.Grace
	if len(times) < 3 || times[1] < firstLimit || times[1] > firstLimit+time.Second || times[2]-times[1] > time.Second {
		t.Fatalf("asked after %v", times)
	}
	for i := 1; i < len(times); i++ {
		if d := times[i] - times[i-1]; d > longest {
			t.Errorf("a question took %v", d)
		}
	}
}

// An agent that is down, or that answers at once without need, is not asked often.
func TestQuestionsAreFewForABrokenAgent(t *testing.T) {
	for _, tt := range []struct {
		name        string
		ask         func(ctx context.Context, q question) error
		least, most int // questions in ten minutes
	}{
		{"down", func(context.Context, question) error { return errors.New("connection refused") }, 20, 200},
		{"denies", func(context.Context, question) error { return &consul.StatusError{Code: 403} }, 20, 150},
		{"answers at once", func(context.Context, question) error { return nil }, 500, 700},
		{"waits", waits, 10, 20},
		{"cuts off", func(ctx context.Context, q question) error {
			if q.wait <= 10*time.Second {
				return waits(ctx, q)
			}
			_ = waits(ctx, question{wait: 10 * time.Second})
			return &consul.OverdueError{Err: errors.New("EOF")}
		}, 60, 150},
	} {
		t.Run(tt.name, func(t *testing.T) {
			times := inBubble(t, &scriptedSource{ask: tt.ask}, 1, 10*time.Minute)
			if n := len(times); n < tt.least || n > tt.most {
				t.Errorf("%d questions, want %d to %d: %v", n, tt.least, tt.most, times)
			}
		})
	}
}

// While something cuts off questions that wait for more than ten seconds, they wait for less. Once it is gone, or the
// client has moved to another agent, they wait for as long as before.
func TestWaitGrowsAgain(t *testing.T) {
	const impatient = 10 * time.Second
	for name, moves := range map[string]bool{"gone": false, "moved": true} {
		t.Run(name, func(t *testing.T) {
			from := &scriptedSource{}
			cut := 0
			from.ask = func(ctx context.Context, q question) error {
				switch past := time.Since(from.begun); {
				case q.index == 0:
					return nil
				case past > 5*time.Minute && moves:
					moves = false
					return consul.ErrMoved
				case past <= 5*time.Minute && q.wait > impatient:
					cut++
					_ = waits(ctx, question{wait: impatient})
					return &consul.OverdueError{Err: errors.New("EOF")}
				}
				return waits(ctx, q)
			}
			times := inBubble(t, from, 1, 20*time.Minute)
			if most := 10; cut < 2 || cut > most {
				t.Errorf("%d questions were cut off, want 2 to %d", cut, most)
			}
			if last := times[len(times)-1] - times[len(times)-2]; last < longestWait*9/10 {
				t.Errorf("the last question waited for %v: asked after %v", last, times)
			}
		})
	}
}

// An agent may repeat the certificate in use to each question without an index, and refuse each question for the next
// one, because the token has lost its right. That is one trouble, also if a connection is lost meanwhile.
func TestCertificateInUseDoesNotDisproveARefusal(t *testing.T) {
	const never = time.Hour
	for _, tt := range []struct {
		name        string
		back        time.Duration // when the token has its right again
		lost        bool          // the fifth question finds nobody
		least, most int           // questions in ten minutes
		want        []What        // reports
	}{
		{"denied", never, false, 40, 250, []What{Failed}},
		{"denied and lost", never, true, 40, 250, []What{Failed, Failed, Failed}},
		{"right again", time.Minute, false, 15, 60, []What{Failed, Works}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, refused := 0, false
			from := &scriptedSource{}
			from.ask = func(ctx context.Context, q question) error {
				err := from.store.State().Identities[0].Err
				n++
				if afterLost := tt.lost && n == 6; refused && !afterLost && consul.KindOf(err) != consul.Denied {
					t.Errorf("question %d: the State says %v", n, err)
				}
				switch {
				case tt.lost && n == 5:
					return errors.New("connection refused")
				case q.index == 0:
					return nil
				case time.Since(from.begun) > tt.back:
					refused = false
					return waits(ctx, q)
				}
				refused = true
				return &consul.StatusError{Code: http.StatusForbidden}
			}
			times := inBubble(t, from, 1, 10*time.Minute)
			if n := len(times); n < tt.least || n > tt.most {
				t.Errorf("%d questions, want %d to %d: %v", n, tt.least, tt.most, times)
			}
			if !slices.Equal(from.reports, tt.want) {
				t.Errorf("got the reports %v, want %v", from.reports, tt.want)
			}
		})
	}
}

// Over plain HTTP, each identity asks twice a minute, however many there are.
func TestIdentitiesTakeTurns(t *testing.T) {
	for _, tt := range []struct{ identities, least, most int }{{3, 38, 55}, {30, 500, 800}, {600, 9_000, 13_000}} {
		times := inBubble(t, &scriptedSource{ask: waits, http: true}, tt.identities, 10*time.Minute)
		if n := len(times); n < tt.least || n > tt.most {
			t.Errorf("%d identities asked %d times in ten minutes, want %d to %d", tt.identities, n, tt.least, tt.most)
		}
	}
}

// Consul is away at the start. As soon as it is there, each identity becomes ready, also those that are in a pause.
func TestStartWithoutConsul(t *testing.T) {
	a, ca := newScriptedAgent(t), testcert.NewAuthority(t, "ca")
	a.issuer = ca
	for _, path := range []string{rootsPath, leafPath + "web"} {
		a.say(path, said{status: http.StatusInternalServerError, body: "No cluster leader"})
	}
	s := NewStore(Options{Consul: a.client(t)})
	web := s.Use("web", "billing")
	run(t, s)
	testproc.Await(t, "some questions", func() bool { return a.questions(leafPath+"web") > 3 })
	_, err := web.Config("127.0.0.1:1", billing, "")
	want := `no certificate for identity "web" yet: consul answered 500: No cluster leader`
	if !errors.Is(err, ErrNotReady) || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
	a.say(leafPath+"web", said{body: leafJSON(certificateOf(t, ca, "web")), index: 6})
	a.say(rootsPath, said{body: rootsJSON(domain, ca), index: 5})
	awaitReady(t, web)
}

// A log must not fill when thousands of certificates come, and has no keys.
func TestLogIsBoundedAndHasNoKeys(t *testing.T) {
	log := &testproc.Log{}
	g := &stage{ca: testcert.NewAuthority(t, "ca")}
	g.store = newStore(Options{Logger: hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info})}, silent{})
	g.web = g.store.Use("web", "billing")
	for range 3 * linesAtOnce {
		g.give(t, g.web)
		g.web.failed(errors.New("no"))
		g.web.failed(errors.New("no"))
	}
	if n := len(log.Lines()); n != linesAtOnce {
		t.Errorf("%d lines, want %d", n, linesAtOnce)
	}
	if text := log.String(); strings.Contains(text, "PRIVATE") || !strings.Contains(text, idOf("web")) {
		t.Errorf("got %s", text)
	}
}
