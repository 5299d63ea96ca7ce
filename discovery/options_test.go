package discovery

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNewConsulNamesWhatIsWrong(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	tests := []struct {
		name string
		o    ConsulOptions
		want string
	}{
		{"address", ConsulOptions{Address: "nowhere"}, `"nowhere"`},
		{"token file", ConsulOptions{TokenFile: missing}, missing},
		{"roots", ConsulOptions{Address: "https://127.0.0.1:1", TLS: TLSOptions{CAFile: missing}}, missing},
		{"service twice", ConsulOptions{Watches: []Watch{{Service: "web"},
			{Service: "web", Query: Query{Service: "x"}}}},
			`"web"`},
		{"nameless", ConsulOptions{Watches: []Watch{{Query: Query{Service: "x"}}}}, "without a service"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewConsul(tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestQueriesThatComeToTheSameShareAKey(t *testing.T) {
	base := Query{Service: "web", Tags: []string{"a", "b"}, Filter: "x", Datacenter: "dc1", Near: "_agent"}
	same := []Query{
		{Service: " Web ", Tags: []string{"B", "a", "b"}, Filter: " x ", Near: "_agent"},
		{Service: "WEB", Tags: []string{"b", "A"}, Filter: "x", Datacenter: "dc1", Near: "_agent"},
	}
	for _, q := range same {
		if got, want := q.normalize("dc1").canonical(), base.normalize("").canonical(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	other := []Query{{Service: "web"}, {Service: "web", Tags: []string{"a b"}},
		{Service: "web", Tags: []string{"a", "b"}},
		{Service: "web", Filter: "a"}, {Service: "web", Datacenter: "a"}, {Service: "web", Near: "a"},
		{Service: "web", Filter: "A"}, {Service: "web", SocketPaths: []string{"/run/*"}},
		{Service: "web", ServerNameMeta: "a"}, {Service: "web", ServerNameTag: "a"},
		{Service: "web", ServerNameTag: "b"}}
	keys := map[string]bool{}
	for _, q := range other {
		keys[q.normalize("").canonical()] = true
	}
	if len(keys) != len(other) {
		t.Errorf("%d keys of %d queries", len(keys), len(other))
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
