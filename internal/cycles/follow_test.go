package cycles

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/lb"
)

// Usable judges an endpoint alone. An endpoint that leads back only through other endpoints is usable.
func TestUsable(t *testing.T) {
	w := newWorld(t, "10.0.0.5/24")
	w.listens("a 127.0.0.1:1", "b 0.0.0.0:2", "c/udp 127.0.0.1:3", "admin 127.0.0.1:9")
	w.has("a", "self.test:1", "other.test:1")
	w.has("b", "127.0.0.1:1")
	w.names = map[string]string{"self.test": "127.0.0.1"}
	w.check("a", "self.test:1", "127.0.0.1")
	w.lookUpNames(t.Context())
	for _, tt := range []struct {
		service, address string
		want             bool
	}{
		{"a", "192.0.2.1:80", true},
		{"a", "127.0.0.1:1", false},
		{"a", "[::ffff:127.0.0.1]:1", false},
		{"a", "127.0.0.1:2", true}, // b leads back to a only if b's endpoints stay the same
		{"b", "10.0.0.5:2", false},
		{"c", "127.0.0.1:3", false},
		{"c", "127.0.0.1:1", true}, // there is no UDP listener
		{"a", "127.0.0.1:9", false},
		{"a", "224.0.0.1:80", false},
		{"a", "10.0.0.255:80", false},
		{"a", "localhost:1", false},
		{"a", "self.test:1", false},
		{"a", "other.test:1", true}, // nothing is known of the name yet
		{"gone", "127.0.0.1:1", true},
		{"gone", "127.0.0.1:9", false},
	} {
		if got := w.Usable(tt.service, endpoint(t, tt.address)); got != tt.want {
			t.Errorf("%s to %s: got %v, want %v", tt.service, tt.address, got, tt.want)
		}
	}
}

// A name that leads to a listener of this process for the first time is looked up, and its set is judged again.
func TestRunLooksNamesUp(t *testing.T) {
	w := newWorld(t)
	w.listens("a 127.0.0.1:1")
	w.has("a", "self.test:1")
	w.names["self.test"] = "127.0.0.1"
	changed := make(chan struct{}, 10)
	w.Detector.changed = func() { changed <- struct{}{} }
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Detector.Run(ctx) })
	w.check("a", "self.test:1", "127.0.0.1")
	<-changed
	cancel()
	running.Wait()
	w.judge(w.sets["a"])
	w.wants("a self.test:1 loop: self.test:1 is 127.0.0.1:1, which is where this service listens")
}

// Left-out endpoints are logged once: one endpoint of a service, and the number of the others.
func TestWhatIsLeftOutIsLogged(t *testing.T) {
	w := newWorld(t)
	var text bytes.Buffer
	w.Detector.log = hclog.New(&hclog.LoggerOptions{Output: &text, DisableTime: true})
	w.listens("a 0.0.0.0:1")
	w.has("a", "127.0.0.3:1", "127.0.0.1:1", "127.0.0.2:1")
	w.has("b", "224.0.0.1:80")
	w.has("a", "127.0.0.3:1", "127.0.0.1:1")
	w.judge(lb.Endpoints{Service: "b", Removed: true})
	want := `[WARN]  endpoint left out, it leads back to this Lictor: service=a endpoint=127.0.0.1:1 ` +
		`reason="127.0.0.1:1 is where this service listens" others_likewise=2
[WARN]  endpoint left out, no instance can have its address: service=b endpoint=224.0.0.1:80 ` +
		`reason="224.0.0.1:80 is a multicast address"
`
	if got := strings.TrimSpace(text.String()); got != strings.TrimSpace(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// If this host's addresses cannot be read, nothing changes. At the start, wildcard listeners are then found on loopback
// only.
func TestAddressesThatCannotBeRead(t *testing.T) {
	var text bytes.Buffer
	fails := true
	w := newWorld(t)
	w.Detector = New(Options{
		Logger: hclog.New(&hclog.LoggerOptions{Output: &text, DisableTime: true}),
		Addrs: func() ([]netip.Prefix, error) {
			if fails {
				return nil, errors.New("no luck")
			}
			return []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24")}, nil
		},
	})
	if !strings.Contains(text.String(), "finding loops through wildcards only on loopback: error=\"no luck\"") {
		t.Errorf("logged %q", text.String())
	}
	w.listens("web 0.0.0.0:80")
	w.has("web", "10.0.0.5:80", "127.0.0.1:80")
	loopback := "web 127.0.0.1:80 loop: 127.0.0.1:80 is where this service listens"
	w.wants(loopback)
	for _, fails = range []bool{false, true} {
		w.readHost()
		w.judge(w.sets["web"])
		w.wants("web 10.0.0.5:80 loop: 10.0.0.5:80 is where this service listens", loopback)
	}
}

// A name that no endpoint has any more is forgotten, and is not looked up again.
func TestNamesAreForgotten(t *testing.T) {
	w := newWorld(t)
	w.listens("a 127.0.0.1:1")
	w.has("a", "self.test:1")
	w.names["self.test"] = "127.0.0.1"
	w.check("a", "self.test:1", "127.0.0.1")
	w.lookUpNames(t.Context())
	w.has("a", "192.0.2.1:80")
	w.lookUpNames(t.Context())
	if n := len(w.Detector.names); n != 0 {
		t.Errorf("%d names are known of no endpoint", n)
	}
}
