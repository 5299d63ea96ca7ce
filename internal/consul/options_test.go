package consul

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

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
		{"further address", Options{More: []string{"nowhere"}}, `"nowhere"`},
		{"mixed addresses", Options{Address: https, More: []string{"127.0.0.1:1"}}, "some are not"},
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
	if c.token.get() != "" || c.namespace != "" || c.at.Load().base.Host != defaultAddress {
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
	wantOnce(t, &log, "the token file cannot be read", "the token file can be read again")
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
