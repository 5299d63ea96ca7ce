package discovery

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/lb"
)

// earlier runs a source with these watches until the replies are over. The source saves its sets in dir.
func earlier(t *testing.T, dir string, watches []Watch, replies map[string][]reply) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{script: replies}, ConsulOptions{StateDir: dir, Watches: watches})
		time.Sleep(time.Minute)
		r.stop()
	})
}

func savedIn(t *testing.T, dir string) []byte {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(dir, savedFile))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func lines(sets []lb.Endpoints) []string {
	r := &recorder{}
	r.OnUpdate(sets)
	return r.got()
}

func TestSavedSetsServeUntilConsulAnswers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	earlier(t, dir, nil, map[string][]reply{"web": {ok(20, "a 80")}})
	info, err := os.Stat(filepath.Join(dir, savedFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file %v, %v, want mode 0600", info.Mode(), err)
	}
	down := status(500, "No known Consul servers")
	replies := []reply{down, down, after(gatherQuiet, down), ok(25, "b 81", "c 82", "d 83")}
	f := &fake{script: map[string][]reply{"web": replies}}
	synctest.Test(t, func(t *testing.T) {
		r := start(t, f, ConsulOptions{StateDir: dir})
		if got, want := fmt.Sprint(lines(r.consul.Saved())), "["+webA+"]"; got != want {
			t.Errorf("saved %s, want %s", got, want)
		}
		if s := r.status(); s.Saved.IsZero() || s.Endpoints != 1 || !s.LastSuccess.IsZero() {
			t.Errorf("status %+v", s)
		}
		time.Sleep(time.Minute)
		if got := r.got(); len(got) == 0 || !strings.HasPrefix(got[len(got)-1], "web: n/b=10.0.0.1:81") {
			t.Errorf("published %q", got)
		}
		if len(r.consul.Saved()) != 0 || !r.status().Saved.IsZero() {
			t.Error("the saved set is still used after an answer")
		}
		r.log.wantOnce(t, "saved endpoints stay in use")
		r.stop()
	})
	if !strings.Contains(string(savedIn(t, dir)), "10.0.0.1:82") {
		t.Errorf("the new set was not saved: %s", savedIn(t, dir))
	}
}

// The first answer is passed on even if it equals the saved set.
func TestAnswerEqualToTheSavedSetIsPublished(t *testing.T) {
	dir := t.TempDir()
	earlier(t, dir, nil, map[string][]reply{"web": {ok(20, "a 80")}})
	bubble(t, time.Second, ConsulOptions{StateDir: dir}, []reply{ok(20, "a 80")},
		func(t *testing.T, r *rig) { r.want(t, webA) })
}

func TestSavedSetOfAnotherQueryDoesNotCount(t *testing.T) {
	dir := t.TempDir()
	earlier(t, dir, []Watch{{Service: "web"}}, map[string][]reply{"web": {ok(20, "a 80")}})
	tests := []struct {
		name    string
		options ConsulOptions
		count   int
	}{
		{"same", ConsulOptions{Watches: []Watch{{Service: "web"}}}, 1},
		{"same under another name", ConsulOptions{Watches: []Watch{{Service: "x", Query: Query{Service: "Web"}}}}, 1},
		{"tag", ConsulOptions{Watches: []Watch{{Service: "web", Query: Query{Tags: []string{"v2"}}}}}, 0},
		{"filter", ConsulOptions{Watches: []Watch{{Service: "web", Query: Query{Filter: "a == b"}}}}, 0},
		{"datacenter", ConsulOptions{Datacenter: "dc2", Watches: []Watch{{Service: "web"}}}, 0},
		{"namespace", ConsulOptions{Namespace: "team", Watches: []Watch{{Service: "web"}}}, 0},
	}
	for _, tt := range tests {
		tt.options.StateDir = dir
		c, err := NewConsul(tt.options)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Saved(); len(got) != tt.count {
			t.Errorf("%s: got %v, want %d sets", tt.name, got, tt.count)
		}
	}
}

// An unusable file is moved aside with one log line, and the source starts.
func TestUnusableStateIsSetAside(t *testing.T) {
	good, err := encodeSaved(saved{sets: someSaved()})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"truncated": string(good[:len(good)/2]),
		"flipped":   strings.Replace(string(good), "10.0.0.1", "10.0.0.3", 1),
		"newer":     strings.Replace(string(good), "endpoints 1 ", "endpoints 2 ", 1),
		"foreign":   "hello",
		"empty":     "",
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, savedFile), content)
			bubble(t, 10*time.Second, ConsulOptions{StateDir: dir}, []reply{ok(20, "a 80")},
				func(t *testing.T, r *rig) {
					r.want(t, webA)
					r.log.wantOnce(t, "saved endpoints cannot be used")
				})
			if aside, err := os.ReadFile(filepath.Join(dir, asideFile)); err != nil || string(aside) != content {
				t.Errorf("set aside %q, %v, want %q", aside, err, content)
			}
			if _, err := decodeSaved(savedIn(t, dir)); err != nil {
				t.Errorf("the file was not replaced: %v", err)
			}
		})
	}
	t.Run("a folder", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, savedFile, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		bubble(t, 10*time.Second, ConsulOptions{StateDir: dir}, []reply{ok(20, "a 80")}, func(t *testing.T, r *rig) {
			r.want(t, webA)
			r.log.wantOnce(t, "saved endpoints cannot be used")
		})
	})
}

func TestStateThatCannotBeWrittenIsSaidOnceAndTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	write(t, dir, "in the way")
	var replies []reply
	for i := range 40 {
		replies = append(replies, after(time.Second, ok(20+i, fmt.Sprint("a ", 80+i))))
	}
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{script: map[string][]reply{"web": replies}}, ConsulOptions{StateDir: dir})
		time.Sleep(50 * time.Second)
		r.log.wantOnce(t, "endpoints cannot be saved")
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		r.log.wantOnce(t, "endpoints are saved again")
		if !strings.Contains(string(savedIn(t, dir)), ":119") {
			t.Errorf("saved %s", savedIn(t, dir))
		}
		r.stop()
	})
}

func TestStateIsWrittenAtMostOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(filepath.Join(t.TempDir(), "state"), (&journal{}).logger(0))
		var writes atomic.Int32
		go s.run(t.Context(), func(context.Context) saved { writes.Add(1); return saved{} })
		for range 1000 {
			s.markDirty()
			time.Sleep(10 * time.Millisecond)
		}
		before := writes.Load()
		if before < 9 || before > 12 {
			t.Errorf("%d writes in 10 s, want about 10", before)
		}
		time.Sleep(time.Hour)
		if n := writes.Load() - before; n > 1 {
			t.Errorf("%d writes while nothing changed", n)
		}
	})
}

// A change just before the end is saved too.
func TestStateIsWrittenAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	bubble(t, 1500*time.Millisecond, ConsulOptions{StateDir: dir},
		[]reply{ok(20, "a 80"), after(time.Second/4, ok(21, "a 80", "b 81")),
			after(time.Second, ok(22, "a 80", "c 82"))},
		func(t *testing.T, r *rig) {})
	if got := string(savedIn(t, dir)); !strings.Contains(got, ":82") || strings.Contains(got, ":81") {
		t.Errorf("saved %s", got)
	}
}

func TestServicesThatWentAreSavedNoMore(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{"web": {ok(20, "a 80")}, "db": {ok(30, "b 81")}}}
		r := start(t, f, ConsulOptions{StateDir: dir, Watches: watchesOf("web", "db")})
		time.Sleep(5 * time.Second)
		if err := r.consul.Apply(watchesOf("db")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		r.stop()
	})
	if got := string(savedIn(t, dir)); strings.Contains(got, ":80") || !strings.Contains(got, ":81") {
		t.Errorf("saved %s", got)
	}
}

// A held store writes nothing. Afterwards it writes the changes.
func TestHeldStoreWritesNothing(t *testing.T) {
	s := newStore(t.TempDir(), hclog.NewNullLogger())
	sets := saved{sets: []savedSet{{query: "q", endpoints: []lb.Endpoint{{ID: "n/a",
		Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}}}}}
	s.hold(true)
	if err := s.write(sets); err != nil {
		t.Error("a held store fails: ", err)
	}
	if got := s.load(); len(got.sets) != 0 {
		t.Errorf("written although held: %v", got)
	}
	s.hold(false)
	select {
	case <-s.dirty:
	default:
		t.Error("the change is not marked for writing")
	}
	if err := s.write(sets); err != nil || len(s.load().sets) != 1 {
		t.Error("not written after the hold: ", err)
	}
}

// A source begins with the sets in ConsulOptions.Saved, with or without a folder.
func TestSavedByAnotherProcess(t *testing.T) {
	query := `"" "" ` + (Query{Service: "web"}).normalize("").canonical()
	text, err := encodeSaved(saved{sets: []savedSet{{query: query,
		endpoints: []lb.Endpoint{{ID: "n/a", Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", t.TempDir()} {
		o := ConsulOptions{Address: "127.0.0.1:1", Watches: []Watch{{Service: "web", Query: Query{Service: "web"}}},
			StateDir: dir, Saved: text}
		first, err := NewConsul(o)
		if err != nil {
			t.Fatal(err)
		}
		if o.Saved, err = first.Save(); err != nil {
			t.Fatal(err)
		}
		second, err := NewConsul(o)
		if err != nil {
			t.Fatal(err)
		}
		if got := second.Saved(); len(got) != 1 || len(got[0].Endpoints) != 1 || got[0].Endpoints[0].ID != "n/a" {
			t.Errorf("got %v", got)
		}
		o.Saved = text[:len(text)-1]
		if damaged, err := NewConsul(o); err != nil || len(damaged.Saved()) != 0 {
			t.Errorf("damaged: %v, %v", damaged, err)
		}
	}
}

// Sets that come from one Consul address are not used at another address, which may belong to another cluster. The
// spelling of the address does not matter. The file of an old version has no address.
func TestSavedSetsOfAnotherConsul(t *testing.T) {
	dir := t.TempDir()
	run := func(file, address string, then func(r *rig)) {
		write(t, filepath.Join(dir, savedFile), file)
		synctest.Test(t, func(t *testing.T) {
			script := map[string][]reply{"web": {hang}}
			r := start(t, &fake{script: script}, ConsulOptions{StateDir: dir, Address: address})
			then(r)
			r.stop()
		})
	}
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{script: map[string][]reply{"web": {ok(20, "a 80")}}}, ConsulOptions{StateDir: dir})
		time.Sleep(time.Minute)
		r.stop()
	})
	file := string(savedIn(t, dir))
	for address, want := range map[string]string{
		"": "[" + webA + "]", "http://127.0.0.1:8500": "[" + webA + "]", "127.0.0.1:8501": "[]", "unix:///x.sock": "[]",
	} {
		run(file, address, func(r *rig) {
			if got := fmt.Sprint(lines(r.consul.Saved())); got != want {
				t.Errorf("%q: saved %s, want %s", address, got, want)
			}
			told := strings.Contains(r.log.String(), "from another consul address")
			if told != (want == "[]") {
				t.Errorf("%q: log %s", address, r.log)
			}
		})
	}
	_, body, _ := strings.Cut(file, "\n")
	body = strings.Replace(body, `"address":"http://127.0.0.1:8500",`, "", 1)
	run(string(sealed(body)), "127.0.0.1:8501", func(r *rig) {
		if got, want := fmt.Sprint(lines(r.consul.Saved())), "["+webA+"]"; got != want {
			t.Errorf("of an earlier version: saved %s, want %s", got, want)
		}
	})
}
