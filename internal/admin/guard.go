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

// A guard decides which requests are allowed. Any program of this host can reach a TCP listener. One such program is a
// browser that shows another site's page. The guard prevents misuse by such pages with these rules:
//
//   - The Host must be an IP address, localhost, this host's name or one of hosts. Otherwise a site could point its own
//     name at this host ("DNS rebinding"). Requests with the token may use any Host, and so may probes.
//   - A request that names another origin is refused, unless it follows a link to the page.
//   - A request that changes something must be a POST that the browser does not mark as coming from another site.
type guard struct {
	hosts     []string // further accepted host names
	tokenFile string   // empty: no token is needed

	reading chan struct{} // has an element while the file is read, so that all requests together use one descriptor
}

// MaxTokenFile is the maximum size of a token file, in bytes.
const MaxTokenFile = 64 << 10

// anyone reports whether path is for probes, which need no token.
func anyone(path string) bool { return path == "/healthz" || path == "/readyz" }

// unwantedTime limits how long a client may send a request body that the server ignores. net/http reads the whole body
// before it sends the answer, so that the connection can be used again.
const unwantedTime = time.Second

// wrap returns a handler that checks each request before next serves it. If local is true, the listener is a Unix
// socket, which browsers cannot reach.
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

// check returns nil if r is allowed, and otherwise the HTTP status and the reason for refusing r.
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

// hasToken reports whether a token is configured and r has it. A page of another site cannot have the token.
func (g *guard) hasToken(r *http.Request) bool {
	if g.tokenFile == "" {
		return false
	}
	_, err := g.authorize(r)
	return err == nil
}

// knowsHost reports whether a Host header names this server, and not the domain of another site.
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

// sameOrigin returns an error if the browser says that r comes from another site. A link to the page is allowed.
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

// authorize checks the token, which a request sends as a bearer token or, from browsers, as a password. authorize reads
// the file each time, so a new token is valid at once.
func (g *guard) authorize(r *http.Request) (code int, err error) {
	select {
	case g.reading <- struct{}{}:
	case <-r.Context().Done(): // reading from a file server may hang
		return http.StatusServiceUnavailable, r.Context().Err()
	}
	text, err := regular.ReadFile(g.tokenFile, MaxTokenFile)
	<-g.reading
	want := strings.TrimSpace(string(text))
	if err != nil || want == "" {
		return http.StatusServiceUnavailable, errors.New("the token file cannot be read, or is empty")
	}
	scheme, got, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110, 11.1: the scheme is case-insensitive
		_, got, _ = r.BasicAuth()
	}
	// The hashes have one length, so the duration of the comparison does not reveal the token's length.
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return http.StatusUnauthorized, errors.New("a valid token is needed, as a bearer token or a password")
	}
	return 0, nil
}
