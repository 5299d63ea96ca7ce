package discovery

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/statefile"
	"github.com/lictor-proxy/lictor/lb"
)

func someSaved() []savedSet {
	return []savedSet{
		{query: `"" "" web`, changed: time.Date(2026, 11, 25, 16, 0, 0, 5, time.UTC), endpoints: []lb.Endpoint{
			{ID: "n/a", Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1},
			{ID: "n/b", Addr: netip.MustParseAddrPort("[fe80::1%eth0]:81"), Weight: 65535},
			{ID: "n%2F1/\"é\n", Host: "db.example.com", Addr: netip.AddrPortFrom(netip.Addr{}, 5432), Weight: 7},
			{ID: "n/s", Path: "/run/app/s", Weight: 1},
			{ID: "n/t", Addr: netip.MustParseAddrPort("10.0.0.2:80"), Weight: 1, ServerName: "web.test"},
			{ID: "n/m", Addr: netip.MustParseAddrPort("10.0.0.3:80"), Weight: 1, ServerName: "web.dc1.internal.x",
				Identity: "/ap/east/ns/default/dc/dc1/svc/web"},
		}},
		{query: "none"},
		{query: "held", endpoints: []lb.Endpoint{
			{ID: "n/a", Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1},
			{ID: "n/b", Addr: netip.MustParseAddrPort("10.0.0.1:81"), Weight: 1},
		}, held: map[string]hold{
			"n/a": {HoldCritical, time.Date(2026, 11, 25, 16, 0, 0, 5, time.UTC)},
		}, joined: map[lb.Place]bool{{Addr: netip.MustParseAddrPort("10.0.0.1:81")}: true}},
	}
}

// sealed returns a file with this body and the right checksum.
func sealed(body string) []byte {
	return fmt.Appendf(nil, "lictor-endpoints 1 %x\n%s", sha256.Sum256([]byte(body)), body)
}

func TestSavedSetsComeBack(t *testing.T) {
	for name, sets := range map[string][]savedSet{"some": someSaved(), "none": nil} {
		file, err := encodeSaved(saved{sets: sets})
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeSaved(file)
		if err != nil || !reflect.DeepEqual(got.sets, sets) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, sets)
		}
	}
}

func TestWhatIsNotASavedFileIsRefused(t *testing.T) {
	good, err := encodeSaved(saved{sets: someSaved()})
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Replace(good, []byte("endpoints 1 "), []byte("endpoints 2 "), 1)
	one := func(endpoint string) []byte {
		return sealed(`{"sets":[{"query":"q","changed":"2026-11-25T16:00:00Z","endpoints":[` + endpoint + `]}]}`)
	}
	const a = `{"id":"a","address":"10.0.0.1:80","weight":1}`
	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "not a file"},
		{"of another program", []byte("#!/bin/sh\necho\n"), "not a file"},
		{"newer", newer, "version 2, this lictor reads version 1"},
		{"version is a word", bytes.Replace(good, []byte("endpoints 1 "), []byte("endpoints x "), 1), "not a file"},
		{"no checksum", []byte("lictor-endpoints 1\n{}"), "checksum"},
		{"cut within the head", good[:20], "not a file"},
		{"cut by one byte", good[:len(good)-1], "checksum"},
		{"one byte more", append(bytes.Clone(good), ' '), "checksum"},
		{"not JSON", sealed("[[["), "not a file"},
		{"another JSON", sealed(`{"sets":7}`), "not a file"},
		{"no query", sealed(`{"sets":[{"endpoints":[]}]}`), "a query has no name"},
		{"a query twice", sealed(`{"sets":[{"query":"q"},{"query":"q"}]}`), "twice"},
		{"an endpoint twice", one(a + "," + a), "twice"},
		{"an address twice", one(a + "," + strings.Replace(a, `"a"`, `"b"`, 1)), "twice"},
		{"no port", one(`{"id":"a","address":"10.0.0.1","weight":1}`), "port"},
		{"port 0", one(`{"id":"a","address":"10.0.0.1:0","weight":1}`), "port 0"},
		{"an address of no host", one(`{"id":"a","address":"0.0.0.0:80","weight":1}`), "not that of a host"},
		{"no host name", one(`{"id":"a","address":"a b:80","weight":1}`), "host name"},
		{"no weight", one(`{"id":"a","address":"10.0.0.1:80"}`), "weight"},
		{"a strange identity", one(strings.Replace(a, "}", `,"identity":"/ns/a/dc/b/svc/c/d"}`, 1)), "identity"},
		{"no ID", one(`{"address":"10.0.0.1:80","weight":1}`), "no ID"},
	}
	if _, err := decodeSaved(one(a)); err != nil {
		t.Fatalf("the measure of the others is refused: %v", err)
	}
	for _, tt := range tests {
		sets, err := decodeSaved(tt.file)
		if err == nil || sets.sets != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, %v, want an error with %q", tt.name, sets, err, tt.want)
		}
	}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	good, err := encodeSaved(saved{sets: someSaved()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := decodeSaved(bad); err == nil {
				t.Fatalf("bit %d of byte %d (%q) flipped, and nothing noticed", bit, i, good[i])
			}
		}
	}
}

// FuzzSaved checks that a file is refused, or yields sets that can be used and that stay the same after writing and
// reading. With seal, the text gets the right checksum.
func FuzzSaved(f *testing.F) {
	good, err := encodeSaved(saved{sets: someSaved()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, false)
	_, body, _ := bytes.Cut(good, []byte("\n"))
	f.Add(body, true)
	f.Add([]byte(`{"sets":[{"query":"q","endpoints":[{"id":"a","address":"[::ffff:10.0.0.1]:80","weight":1}]}]}`), true)
	f.Fuzz(func(t *testing.T, file []byte, seal bool) {
		if seal {
			file = sealed(string(file))
		}
		sets, err := decodeSaved(file)
		if err != nil {
			if sets.sets != nil {
				t.Errorf("sets besides error %v", err)
			}
			return
		}
		for _, s := range sets.sets {
			checkEndpoints(t, s.endpoints)
		}
		again, err := encodeSaved(sets)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeSaved(again)
		if err != nil || back.origin != sets.origin || !sameSets(back.sets, sets.sets) {
			t.Errorf("written again: got %+v, %v, want %+v", back, err, sets)
		}
	})
}

func sameSets(a, b []savedSet) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].query != b[i].query || !a[i].changed.Equal(b[i].changed) ||
			!reflect.DeepEqual(a[i].endpoints, b[i].endpoints) {
			return false
		}
	}
	return true
}

// checkEndpoints checks that the balancer may get these endpoints.
func checkEndpoints(t *testing.T, endpoints []lb.Endpoint) {
	t.Helper()
	seen := map[string]bool{}
	for _, e := range endpoints {
		if e.ID == "" || seen[e.ID] || seen["@"+e.Address()] || e.Weight < 1 ||
			(e.Path == "") != (e.Addr.Port() != 0) || (e.Host+e.Path == "") != e.Addr.Addr().IsValid() {
			t.Errorf("endpoint %+v of %+v", e, endpoints)
		}
		seen[e.ID], seen["@"+e.Address()] = true, true
	}
}

func TestErrorsOfSavedFilesCanBeToldApart(t *testing.T) {
	if _, err := decodeSaved([]byte("x\n")); !errors.Is(err, statefile.ErrForeign) {
		t.Errorf("got %v", err)
	}
	if _, err := decodeSaved([]byte("lictor-endpoints 1 00\n{}")); !errors.Is(err, statefile.ErrDamaged) {
		t.Errorf("got %v", err)
	}
}
