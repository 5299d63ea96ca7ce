package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// writeFiles writes a key pair, a token and an empty file. It returns a function from a file's name to its path.
func writeFiles(t *testing.T) func(name string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, blockType string, content []byte) {
		if blockType != "" {
			content = pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: content})
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"one", "two"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".crt", "CERTIFICATE", cert)
		write(name+".key", "PRIVATE KEY", keyBytes)
	}
	write("token", "", []byte("t0k3n\n"))
	write("empty", "", []byte("\n"))
	write("lines", "", []byte("s3cr3t\ns3cr3t\n"))
	return func(name string) string { return filepath.Join(dir, name) }
}

func TestEnvironmentCountsWhereArgumentsAreAbsent(t *testing.T) {
	file := writeFiles(t)
	all := map[string]string{
		"CONSUL_HTTP_ADDR": "https://env.example.com", "CONSUL_HTTP_TOKEN": "env-token",
		"CONSUL_HTTP_AUTH": "user:password", "CONSUL_HTTP_SSL_VERIFY": "false",
		"CONSUL_CACERT": file("one.crt"), "CONSUL_CAPATH": file("."),
		"CONSUL_CLIENT_CERT": file("one.crt"), "CONSUL_CLIENT_KEY": file("one.key"),
		"CONSUL_TLS_SERVER_NAME": "name", "CONSUL_NAMESPACE": "ns", "CONSUL_PARTITION": "part",
	}
	fromEnv := Consul{
		Address: "https://env.example.com", Token: "env-token", HTTPAuth: "user:password", Namespace: "ns",
		Partition: "part",
		TLS: TLS{CAFile: file("one.crt"), CAPath: file("."), CertFile: file("one.crt"), KeyFile: file("one.key"),
			ServerName: "name", InsecureSkipVerify: true},
	}
	overridden := fromEnv
	overridden.Address, overridden.Token = "https://here:1", "mine"
	overridden.TLS.ServerName, overridden.TLS.InsecureSkipVerify = "mine", false

	tests := []struct {
		name, block string
		env         map[string]string
		want        Consul
	}{
		{"nothing", "", nil, Consul{Address: "127.0.0.1:8500"}},
		{"all variables", "", all, fromEnv},
		{"empty block", "consul {}", all, fromEnv},
		{"arguments win", `consul {
			address = "https://here:1"
			token   = "mine"
			tls {
				server_name          = "mine"
				insecure_skip_verify = false
			}
		}`, all, overridden},
		{"null is absent", `consul { address = null }`,
			map[string]string{"CONSUL_HTTP_ADDR": "a:1"}, Consul{Address: "a:1"}},
		{"SSL for an address without scheme", "",
			map[string]string{"CONSUL_HTTP_ADDR": "a:1", "CONSUL_HTTP_SSL": "1"}, Consul{Address: "https://a:1"}},
		{"SSL for the default", "", map[string]string{"CONSUL_HTTP_SSL": "true"},
			Consul{Address: "https://127.0.0.1:8500"}},
		{"SSL not for an address with one", "",
			map[string]string{"CONSUL_HTTP_ADDR": "http://a:1", "CONSUL_HTTP_SSL": "1"}, Consul{Address: "http://a:1"}},
		{"token file before token", "",
			map[string]string{"CONSUL_HTTP_TOKEN": "x", "CONSUL_HTTP_TOKEN_FILE": file("token")},
			Consul{Address: "127.0.0.1:8500", TokenFile: file("token")}},
		{"token argument before token file variable", `consul { token = "x" }`,
			map[string]string{"CONSUL_HTTP_TOKEN_FILE": "/nowhere"},
			Consul{Address: "127.0.0.1:8500", Token: "x"}},
		{"token file argument before token variable",
			`consul { token_file = "` + filepath.ToSlash(file("token")) + `" }`,
			map[string]string{"CONSUL_HTTP_TOKEN": "x"},
			Consul{Address: "127.0.0.1:8500", TokenFile: filepath.ToSlash(file("token"))}},
		{"socket", `consul { address = "unix:///run/consul.sock" }`, nil, Consul{Address: "unix:///run/consul.sock"}},
		{"socket with an @", `consul { address = "unix:///run/a@b.sock" }`, nil,
			Consul{Address: "unix:///run/a@b.sock"}},
		{"path behind a gateway", `consul { address = "http://gateway/consul" }`, nil,
			Consul{Address: "http://gateway/consul"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantConsul(t, tt.block, tt.env, tt.want) })
	}
}

// wantConsul checks what a consul block and an environment result in. max_watches has its default.
func wantConsul(t *testing.T, block string, env map[string]string, want Consul) {
	t.Helper()
	got := mustLoad(t, "service \"web\" { listen = 9000 }\n"+block, env).Consul
	want.MaxWatches = DefaultMaxWatches
	secrets := cmp.Comparer(func(a, b Secret) bool { return string(a) == string(b) })
	if diff := cmp.Diff(want, got, secrets); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}

func TestSeveralAddressesAndEnterprise(t *testing.T) {
	for _, tt := range []struct {
		name, block string
		env         map[string]string
		want        Consul
	}{
		{"several", `consul { address = ["https://a:1", "https://b:1"] }`,
			map[string]string{"CONSUL_HTTP_ADDR": "c:1"}, Consul{Address: "https://a:1\nhttps://b:1"}},
		{"list of one", `consul { address = ["a:1"] }`, nil, Consul{Address: "a:1"}},
		{"SSL for several", `consul { address = ["a:1", "b:1"] }`, map[string]string{"CONSUL_HTTP_SSL": "1"},
			Consul{Address: "https://a:1\nhttps://b:1"}},
		{"own agent by its socket first", `consul { address = ["unix:///run/consul.sock", "b:1"] }`, nil,
			Consul{Address: "unix:///run/consul.sock\nb:1"}},
		{"namespace and partition arguments win", `consul {
			namespace = "mine"
			partition = "part-1"
		}`, map[string]string{"CONSUL_NAMESPACE": "ns", "CONSUL_PARTITION": "p"},
			Consul{Address: "127.0.0.1:8500", Namespace: "mine", Partition: "part-1"}},
	} {
		t.Run(tt.name, func(t *testing.T) { wantConsul(t, tt.block, tt.env, tt.want) })
	}
}

// Line breaks at the end of environment variables do not count. Variables filled from files often have them.
func TestLineBreaksBehindVariables(t *testing.T) {
	c := mustLoad(t, "service \"web\" { listen = 9000 }", map[string]string{"CONSUL_HTTP_ADDR": "a:1\n",
		"CONSUL_HTTP_TOKEN": "t0k3n\r\n", "CONSUL_HTTP_AUTH": "user:password\n", "CONSUL_NAMESPACE": "ns\n",
		"CONSUL_HTTP_SSL": "true\n"}).Consul
	got := []string{string(c.Address), string(c.Token), string(c.HTTPAuth), c.Namespace}
	if want := []string{"https://a:1", "t0k3n", "user:password", "ns"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTokenArgumentOfTwoWords(t *testing.T) {
	_, diags := loadText("service \"web\" { listen = 9000 }\nconsul { token = \"s3cr3t s3cr3t\" }", nil)
	got := textOf(diags)
	if !strings.Contains(got, "token: a token is one word of visible ASCII") || strings.Contains(got, "s3cr3t") {
		t.Errorf("got:\n%s", got)
	}
}

func TestBadEnvironmentNamesTheVariable(t *testing.T) {
	file := writeFiles(t)
	tests := []struct {
		name string
		env  map[string]string
		want string
	}{
		{"address", map[string]string{"CONSUL_HTTP_ADDR": "consul"}, `CONSUL_HTTP_ADDR: "consul" is not host:port`},
		{"scheme", map[string]string{"CONSUL_HTTP_ADDR": "ftp://consul:1"},
			`CONSUL_HTTP_ADDR: "ftp://consul:1": "ftp://" is not a scheme`},
		{"space", map[string]string{"CONSUL_HTTP_ADDR": "my consul:1"},
			`CONSUL_HTTP_ADDR: "my consul:1" is not host:port`},
		{"no port", map[string]string{"CONSUL_HTTP_ADDR": "http://consul:"},
			`CONSUL_HTTP_ADDR: "http://consul:" is not the address`},
		{"relative socket", map[string]string{"CONSUL_HTTP_ADDR": "unix://consul.sock"}, "CONSUL_HTTP_ADDR: "},
		{"password", map[string]string{"CONSUL_HTTP_ADDR": "http://u:s3cr3t@consul:1"},
			"CONSUL_HTTP_ADDR: an address cannot hold a user and password"},
		{"bool", map[string]string{"CONSUL_HTTP_SSL_VERIFY": "no"}, `CONSUL_HTTP_SSL_VERIFY: "no" is neither`},
		{"token file", map[string]string{"CONSUL_HTTP_TOKEN_FILE": "/nowhere"},
			"CONSUL_HTTP_TOKEN_FILE: open /nowhere"},
		{"token of two lines", map[string]string{"CONSUL_HTTP_TOKEN": "s3cr3t\ns3cr3t"},
			"CONSUL_HTTP_TOKEN: a token is one word"},
		{"token file of two lines", map[string]string{"CONSUL_HTTP_TOKEN_FILE": file("lines")},
			"CONSUL_HTTP_TOKEN_FILE: the file " + file("lines") + " does not hold just a token"},
		{"empty token file", map[string]string{"CONSUL_HTTP_TOKEN_FILE": file("empty")},
			"CONSUL_HTTP_TOKEN_FILE: the file " + file("empty") + " is empty"},
		{"CA", map[string]string{"CONSUL_CACERT": file("empty")},
			"CONSUL_CACERT: " + file("empty") + " holds no certificate"},
		{"CA path", map[string]string{"CONSUL_CAPATH": file("token")}, "CONSUL_CAPATH: "},
		{"certificate alone", map[string]string{"CONSUL_CLIENT_CERT": file("one.crt")},
			"CONSUL_CLIENT_CERT: a client certificate needs its key"},
		{"key alone", map[string]string{"CONSUL_CLIENT_KEY": file("one.key")},
			"CONSUL_CLIENT_KEY: a key needs its client certificate"},
		{"strangers", map[string]string{"CONSUL_CLIENT_CERT": file("one.crt"), "CONSUL_CLIENT_KEY": file("two.key")},
			"private key does not match public key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, diags := loadText(`service "web" { listen = 9000 }`, tt.env)
			got := textOf(diags)
			if len(diags.Diagnostics) != 1 || !strings.Contains(got, tt.want) || strings.Contains(got, "s3cr3t") {
				t.Errorf("got:\n%s\nwant one error with %q", got, tt.want)
			}
			_, diags = loadText("service \"web\" {\n  listen = 9000\n  static { endpoints = [\"10.0.0.5:80\"] }\n}",
				tt.env)
			if len(diags.Diagnostics) != 0 {
				t.Errorf("although nothing needs Consul, got:\n%s", textOf(diags))
			}
		})
	}
}

func TestWriteTextColor(t *testing.T) {
	_, diags := loadText("service \"web\" {\n\tlisten = \"*:1\"\n}", nil)
	var b strings.Builder
	if err := diags.WriteText(&b, true); err != nil {
		t.Fatal(err)
	}
	if want := "   2 | \tlisten = \x1b[1;31m\"*:1\"\x1b[0m\n       | \t         " +
		"\x1b[1;31m^^^^^\x1b[0m\n"; !strings.Contains(b.String(), want) {
		t.Errorf("got %q, want %q in it", b.String(), want)
	}
}

// Compare and the API show addresses as they are written in a configuration.
func TestAddressesAreShownAsTheyAreWritten(t *testing.T) {
	const service = "service \"web\" { listen = 9000 }\n"
	one := mustLoad(t, service+`consul { address = "a:1" }`, nil)
	two := mustLoad(t, service+`consul { address = ["a:1", "b:1"] }`, nil)
	var b strings.Builder
	if err := Compare(one, two).Write(&b); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), "~ consul.address = \"a:1\" -> [\"a:1\", \"b:1\"]\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for want, cfg := range map[string]*Config{`"address":"a:1"`: one, `"address":["a:1","b:1"]`: two} {
		text, err := json.Marshal(cfg)
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%v: no %s in %s", err, want, text)
		}
		var back Config
		if err := json.Unmarshal(text, &back); err != nil || back.Consul.Address != cfg.Consul.Address {
			t.Errorf("read back %q, %v", back.Consul.Address, err)
		}
	}
}
