package hostport

import (
	"strings"
	"testing"
)

func TestParseAgent(t *testing.T) {
	for _, tt := range []struct {
		text, url, socket string
		bad               string // part of the error; empty for none
	}{
		{"127.0.0.1:8500", "http://127.0.0.1:8500", "", ""},
		{":8500", "http://127.0.0.1:8500", "", ""},
		{"[::1]:8500", "http://[::1]:8500", "", ""},
		{"consul.example.com:8500", "http://consul.example.com:8500", "", ""},
		{"http://127.0.0.1:8500/", "http://127.0.0.1:8500", "", ""},
		{"https://127.0.0.1:8501", "https://127.0.0.1:8501", "", ""},
		{"https://consul.example.com", "https://consul.example.com", "", ""},
		{"https://[::1]", "https://[::1]", "", ""},
		{"https://example.com:443/consul/api/", "https://example.com:443/consul/api", "", ""},
		{"http://gateway/consul", "http://gateway/consul", "", ""},
		{"unix:///run/consul.sock", "http://localhost", "/run/consul.sock", ""},
		{"unix:///run/a@b.sock", "http://localhost", "/run/a@b.sock", ""},

		{"", "", "", "not host:port"},
		{"unix://run/consul.sock", "", "", "must be absolute"},
		{"unix://", "", "", "must be absolute"},
		{"127.0.0.1", "", "", "not host:port"},
		{"127.0.0.1:", "", "", "not host:port"},
		{"127.0.0.1:http", "", "", "not host:port"},
		{"127.0.0.1:99999", "", "", "not host:port"},
		{"127.0.0.1:0", "", "", "not host:port"},
		{"127.0.0.1:8500/consul", "", "", "not host:port"},
		{"127.0.0.1:8500?token=x", "", "", "not host:port"},
		{"my consul:8500", "", "", "not host:port"},
		{"::1:8500", "", "", "not host:port"},
		{"http://127.0.0.1:0", "", "", "not the address of a server"},
		{"http://127.0.0.1:", "", "", "not the address of a server"},
		{"http://::1", "", "", "not the address of a server"},
		{"http://:8500", "", "", "not the address of a server"},
		{"http://", "", "", "not the address of a server"},
		{"http://127.0.0.1:8500?token=x", "", "", "not the address of a server"},
		{"http://127.0.0.1:8500?", "", "", "not the address of a server"},
		{"http://127.0.0.1:8500#x", "", "", "not the address of a server"},
		{"ftp://127.0.0.1:8500", "", "", `"ftp://" is not a scheme`},
		{"ftp://me:s3cret@127.0.0.1:8500", "", "", "user and password"},
		{"unix://me:s3cret@run", "", "", "user and password"},
		{"http://me:s3cret@127.0.0.1:8500", "", "", "user and password"},
		{"me:s3cret@127.0.0.1:8500", "", "", "user and password"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			got, err := ParseAgent(tt.text)
			if tt.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tt.bad) || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("got %v and the error %v, want one with %q", got, err, tt.bad)
				}
				return
			}
			if err != nil || got.URL.String() != tt.url || got.Socket != tt.socket {
				t.Errorf("got %s %s %v, want %s %s", got.URL.String(), got.Socket, err, tt.url, tt.socket)
			}
		})
	}
}

func TestAgentLocal(t *testing.T) {
	for text, want := range map[string]bool{
		"127.0.0.1:8500":                 true,
		":8500":                          true,
		"https://[::1]:8501":             true,
		"http://localhost:8500":          true,
		"unix:///run/consul.sock":        true,
		"10.0.0.1:8500":                  false,
		"https://consul.example.com":     false,
		"https://127.consul.example.com": false,
	} {
		a, err := ParseAgent(text)
		if got := a.Local(); err != nil || got != want {
			t.Errorf("%q: got %v, error %v, want %v", text, got, err, want)
		}
	}
}
