package consul

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestAddressForms(t *testing.T) {
	tests := []struct {
		address, base, socket string
		bad                   string // part of the error
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
		{"unix:///run/consul.sock", "http://localhost", "/run/consul.sock", ""},
		{"unix://run/consul.sock", "", "", "absolute path"},
		{"unix://", "", "", "absolute path"},
		{"127.0.0.1", "", "", "not host:port"},
		{"127.0.0.1:", "", "", "1..65535"},
		{"127.0.0.1:http", "", "", "not host:port"},
		{"127.0.0.1:99999", "", "", "1..65535"},
		{"http://127.0.0.1:0", "", "", "1..65535"},
		{"::1:8500", "", "", "not host:port"},
		{"ftp://127.0.0.1:8500", "", "", "unknown scheme"},
		{"http://", "", "", "not host:port"},
		{"http://127.0.0.1:8500?token=x", "", "", "more than"},
		{"http://me:s3cret@127.0.0.1:8500", "", "", "user name"},
	}
	for _, tt := range tests {
		t.Run(tt.address, func(t *testing.T) {
			got, err := parseTarget(tt.address)
			if tt.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tt.bad) || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("error %v, want one with %q", err, tt.bad)
				}
				return
			}
			if err != nil || got.base.String() != tt.base || got.socket != tt.socket {
				t.Errorf("got %s %s %v, want %s %s", got.base.String(), got.socket, err, tt.base, tt.socket)
			}
		})
	}
}

func TestLocalTargets(t *testing.T) {
	tests := map[string]bool{
		"":                               true,
		"127.0.0.1:8500":                 true,
		":8500":                          true,
		"https://[::1]:8501":             true,
		"http://localhost:8500":          true,
		"unix:///run/consul.sock":        true,
		"10.0.0.1:8500":                  false,
		"https://consul.example.com":     false,
		"https://127.consul.example.com": false,
	}
	for address, want := range tests {
		at, err := parseTarget(Options{Address: address}.withDefaults().Address)
		if got := at.local(); err != nil || got != want {
			t.Errorf("%q: local is %v, error %v, want %v", address, got, err, want)
		}
	}
}

func TestNewNamesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	empty, lines := filepath.Join(dir, "empty"), filepath.Join(dir, "lines")
	write(t, empty, "\n")
	write(t, lines, "secret\nsecret\n")
	missing := filepath.Join(dir, "missing")
	const https = "https://127.0.0.1:1"
	tests := []struct {
		name string
		o    Options
		want string
	}{
		{"address", Options{Address: "nowhere"}, `"nowhere"`},
		{"token file", Options{TokenFile: missing}, missing},
		{"empty token file", Options{TokenFile: empty}, "is empty"},
		{"token file with two lines", Options{TokenFile: lines}, "more than one line"},
		{"roots", Options{Address: https, TLS: TLSOptions{CAFile: missing}}, missing},
		{"certificate", Options{Address: https, TLS: TLSOptions{CertFile: missing, KeyFile: missing}}, missing},
		{"certificate without key", Options{Address: https, TLS: TLSOptions{CertFile: missing}}, "both"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestEnvironmentDoesNotCount(t *testing.T) {
	for _, name := range []string{
		"CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE", "CONSUL_NAMESPACE", "CONSUL_CACERT",
	} {
		t.Setenv(name, "/nonsense")
	}
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c.token.get() != "" || c.namespace != "" || c.base.Host != defaultAddress {
		t.Errorf("client %+v", c)
	}
}

func TestTokenFileIsReadAgainAndOutlivesItsLoss(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, "  one\n")
	var log testproc.Log
	token, err := newToken(Options{TokenFile: file, Token: "ignored", Logger: logger(&log)})
	if err != nil {
		t.Fatal(err)
	}
	want := func(want string) {
		t.Helper()
		if got := token.get(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	want("one")
	write(t, file, "two")
	want("two")
	write(t, file, "")
	want("two")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	want("two")
	wantOnce(t, &log, "token file cannot be read")
	write(t, file, "three")
	want("three")
	wantOnce(t, &log, "token file cannot be read", "token file can be read again")
	if strings.Contains(log.String(), "two") || strings.Contains(log.String(), "three") {
		t.Errorf("token in the log:\n%s", &log)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
