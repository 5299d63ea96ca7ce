package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// A guard decides who may ask. Over TCP any program of this host can, a browser among them that shows somebody
// else's page; hence:
//
//   - The Host must be an IP address, localhost, this host's name or one of hosts. A page whose name was made to
//     point here ("DNS rebinding") has its own. Whoever has the token may use any Host, and so may probes.
//   - A request that says that it comes from another origin is turned away, except when somebody follows a link to
//     the page.
//   - What changes something is a POST, and the browser must not say that it comes from elsewhere.
type guard struct {
	hosts     []string // further names that this server may be asked by
	tokenFile string   // empty: no token is asked for

	reading chan struct{} // has an element while the file is read: it takes one descriptor, however many ask
}

// MaxTokenFile is how many bytes the file of a token may have.
const MaxTokenFile = 64 << 10

// anyone are the paths that probes ask, without a token.
func anyone(path string) bool { return path == "/healthz" || path == "/readyz" }

// unwantedTime is how long a client may go on to send a body that nobody reads: net/http reads all of it before it
// sends the answer, so that the connection can be used again.
const unwantedTime = time.Second

// wrap returns next behind the guard; local is of a Unix socket, which no browser reaches.
func (g *guard) wrap(next http.Handler, local bool) http.Handler {
	var cross http.CrossOriginProtection
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, err := g.check(r, local, &cross)
		isOperator := err == nil && (g.tokenFile == "" || !anyone(r.URL.Path))
		connOf(r).identify(isOperator)
		if !isOperator && r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(unwantedTime))
		}
		if err == nil {
			next.ServeHTTP(w, r)
			return
		}
		if code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate",
				`Basic realm="lictor: any name, and the token as the password", charset="UTF-8"`)
		}
		refuse(w, code, err)
	})
}

// check returns why r is refused, if it is.
func (g *guard) check(r *http.Request, local bool, cross *http.CrossOriginProtection) (code int, err error) {
	if !local {
		if !g.knowsHost(r.Host) && !anyone(r.URL.Path) && !g.hasToken(r) {
			const text = "host %q is not known here: use an IP address, or add the name to hosts in the admin block"
			return http.StatusForbidden, fmt.Errorf(text, r.Host)
		}
		if err := sameOrigin(r); err != nil {
			return http.StatusForbidden, err
		}
	}
	if err := cross.Check(r); err != nil {
		return http.StatusForbidden, err
	}
	if g.tokenFile != "" && !anyone(r.URL.Path) {
		return g.authorize(r)
	}
	return 0, nil
}

// hasToken reports whether a token is asked for and r has it. No page has it whose name was made to point here.
func (g *guard) hasToken(r *http.Request) bool {
	if g.tokenFile == "" {
		return false
	}
	_, err := g.authorize(r)
	return err == nil
}

// knowsHost tells whether a Host header names this server rather than somebody's domain.
func (g *guard) knowsHost(header string) bool {
	host := header
	if h, _, err := net.SplitHostPort(header); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" || slices.Contains(g.hosts, host) {
		return true
	}
	name, err := os.Hostname()
	return err == nil && host == strings.ToLower(name)
}

// sameOrigin is an error if the browser says that another site asks. Following a link to the page is allowed.
func sameOrigin(r *http.Request) error {
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
			return fmt.Errorf("origin %q is not this server", origin)
		}
	}
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case site == "", site == "same-origin", site == "none":
		return nil
	case r.Method == http.MethodGet && r.URL.Path == "/" && r.Header.Get("Sec-Fetch-Mode") == "navigate" &&
		r.Header.Get("Sec-Fetch-Dest") == "document":
		return nil
	default:
		return fmt.Errorf("the request comes from another site (%s)", site)
	}
}

// authorize checks the token, given as a bearer token or, by browsers, as a password. The file is read each time, so
// that a new token counts at once.
func (g *guard) authorize(r *http.Request) (code int, err error) {
	select {
	case g.reading <- struct{}{}:
	case <-r.Context().Done(): // a file server may hang
		return http.StatusServiceUnavailable, r.Context().Err()
	}
	text, err := regular.ReadFile(g.tokenFile, MaxTokenFile)
	<-g.reading
	want := strings.TrimSpace(string(text))
	if err != nil || want == "" {
		return http.StatusServiceUnavailable, errors.New("the file of the token cannot be read, or is empty")
	}
	scheme, got, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110, 11.1: in any case of letters
		_, got, _ = r.BasicAuth()
	}
	// Of hashes, so that the time taken does not tell the length either.
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return http.StatusUnauthorized, errors.New("a token is needed: the right one, as a bearer token, or as the " +
			"password")
	}
	return 0, nil
}
