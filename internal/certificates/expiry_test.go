package certificates

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

const day = 24 * time.Hour

func TestHealthOfCertificates(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		life, left time.Duration
		want       Health
	}{
		{90 * day, 15 * day, HealthFine}, {90 * day, 13 * day, HealthExpiring}, {365 * day, 15 * day, HealthFine},
		{day, 7 * time.Hour, HealthFine}, {day, 5 * time.Hour, HealthExpiring}, {day, 0, HealthExpired},
		{day, -day, HealthExpired},
	} {
		c := &content{from: now.Add(tt.left - tt.life), to: now.Add(tt.left)}
		if got := c.health(now); got != tt.want {
			t.Errorf("%v of %v left: got %s, want %s", tt.left, tt.life, got, tt.want)
		}
	}
}

// A certificate that has to be replaced is reported once, and so is its end. States has both, and also bad files.
func TestExpiringCertificates(t *testing.T) {
	dir, ca, k := t.TempDir(), testcert.NewAuthority(t, "root"), newKeeper(t)
	to := time.Now().Add(3 * time.Second) // an hour of its life is over
	cert, key := ca.Issue(t, testcert.Request{To: to}).Write(t, dir, "web")
	server, err := k.Server(ServerOptions{Service: "web", Certificates: []Pair{{cert, key}},
		ClientCAFile: ca.WriteFile(t, dir, "ca.pem")})
	must(t, err)
	defer server.Close()
	testproc.Await(t, "two reports", func() bool { return len(k.reported()) == 2 })
	for i, want := range []What{Expiring, Expired} {
		if r := k.reported()[i]; r.What != want || !r.Expires.Equal(to.Truncate(time.Second)) || r.Files[0] != cert {
			t.Errorf("got %+v, want %s", r, want)
		}
	}
	stateOf := func(file string) State {
		for _, s := range k.States(time.Now())["web"] {
			if s.File == file {
				return s
			}
		}
		return State{}
	}
	if s := stateOf(cert); s.Health != HealthExpired || s.Err != nil || s.Authorities {
		t.Errorf("got %+v", s)
	}
	if s := stateOf(dir + "/ca.pem"); s.Health != HealthFine || !s.Authorities {
		t.Errorf("got %+v", s)
	}
	ca.Issue(t, testcert.Request{}).Write(t, dir, "web")
	testproc.Await(t, "the new certificate", func() bool { return stateOf(cert).Health == HealthFine })
	must(t, os.WriteFile(cert, nil, 0o600))
	testproc.Await(t, "the bad file", func() bool { return stateOf(cert).Health == HealthUnusable })
	if s := stateOf(cert); s.Err == nil || !strings.Contains(s.Err.Error(), cert) || errors.Is(s.Err, os.ErrNotExist) {
		t.Errorf("got %+v", s)
	}
}

// The first certificate of a chain that expires counts, and of authorities the last one.
func TestValidityOfChains(t *testing.T) {
	ca := testcert.NewAuthority(t, "root") // for a day
	leaf := ca.Issue(t, testcert.Request{To: time.Now().Add(2 * day)})
	all := certificatesIn(append(leaf.Cert, ca.PEM()...))
	pair := leaf.TLS(t)
	chain, roots := &content{pair: &pair}, &content{}
	chain.setValidity(all)
	roots.setValidity(all)
	if !chain.to.Equal(ca.Certificate.NotAfter) || !roots.to.Equal(pair.Leaf.NotAfter) {
		t.Errorf("got %v and %v", chain.to, roots.to)
	}
}
