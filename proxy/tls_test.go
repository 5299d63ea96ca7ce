package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// An authority issues certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(name string) *authority {
	a := &authority{pool: x509.NewCertPool()}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key = a.sign(t)
	a.pool.AddCert(a.cert)
	return a
}

// sign signs t by the authority, or by itself if there is no authority yet.
func (a *authority) sign(t *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = t, key
	}
	t.NotBefore, t.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), by)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert, key
}

// issue returns a certificate for clients and servers with the given name, at 127.0.0.1.
func (a *authority) issue(name string) tls.Certificate {
	cert, key := a.sign(&x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{{127, 0, 0, 1}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// testCA issues the certificates of the suite, and testCert is that of all its servers and of Lictor.
var (
	testCA   = sync.OnceValue(func() *authority { return newAuthority("test") })
	testCert = sync.OnceValue(func() tls.Certificate { return testCA().issue("lictor.test") })
)

// clientConfig and serverConfig return new configurations of version version.
func clientConfig(version uint16) *tls.Config {
	return &tls.Config{RootCAs: testCA().pool, ServerName: "lictor.test", MinVersion: version, MaxVersion: version}
}

func serverConfig(version uint16) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{testCert()}, MinVersion: version, MaxVersion: version}
}

// acceptTLS and endpointTLS return what a service needs to use the same configuration for all.
func acceptTLS(c *tls.Config) *AcceptTLS { return &AcceptTLS{Config: func() *tls.Config { return c }} }

func endpointTLS(c *tls.Config) *EndpointTLS {
	return &EndpointTLS{Config: func(lb.Endpoint) (*tls.Config, error) { return c, nil }}
}

// A tlsConn is a testConn that speaks TLS.
type tlsConn struct {
	*tls.Conn
	bare   *eofConn
	resets bool // Close sends a RST and no close_notify
}

// An eofConn notes the end that the system reports.
type eofConn struct {
	*net.TCPConn
	ended bool
}

func (c *eofConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.ended = c.ended || err == io.EOF
	return n, err
}

var errNoNotify = errors.New("the connection ended without close_notify")

// Read returns an error if the peer ended the connection without close_notify.
func (c *tlsConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == io.EOF && c.bare.ended {
		err = errNoNotify
	}
	return n, err
}

func (c *tlsConn) CloseWrite() error {
	if err := c.Conn.CloseWrite(); err != nil {
		return err
	}
	return c.bare.CloseWrite()
}

func (c *tlsConn) SetLinger(seconds int) error {
	c.resets = seconds == 0
	return c.bare.SetLinger(seconds)
}

func (c *tlsConn) Close() error {
	if c.resets {
		return c.bare.Close()
	}
	return c.Conn.Close()
}

func (c *tlsConn) SyscallConn() (syscall.RawConn, error) { return c.bare.SyscallConn() }
func (c *tlsConn) SetReadBuffer(n int) error             { return c.bare.SetReadBuffer(n) }
func (c *tlsConn) SetWriteBuffer(n int) error            { return c.bare.SetWriteBuffer(n) }

// encrypted says at which ends the suite speaks TLS, and which version. A test that runs other tests sets it.
var encrypted struct {
	client, endpoint bool
	denies           bool // endpoints may deny
	version          uint16
	inside           bool // with proxyHeaders, endpoints get the header inside TLS
}

// encrypt makes s speak TLS at the ends that encrypted says. Each call gives s the same settings.
func encrypt(s *Service) {
	if s.Protocol != TCP {
		return
	}
	if encrypted.client {
		s.AcceptTLS = suiteAccept()
	}
	if encrypted.endpoint {
		s.EndpointTLS = suiteEndpoint()
		if encrypted.denies {
			s.EndpointTLS = suiteDenying()
		}
	}
	if encrypted.inside {
		s.EndpointTLS = suiteInside()
	}
}

var (
	suiteAccept = sync.OnceValue(func() *AcceptTLS {
		return &AcceptTLS{Config: acceptTLS(serverConfig(0)).Config, Timeout: time.Minute}
	})
	suiteEndpoint = sync.OnceValue(func() *EndpointTLS { return endpointTLS(clientConfig(0)) })
	suiteDenying  = sync.OnceValue(func() *EndpointTLS { return mayDenyTLS(clientConfig(0)) })
	suiteInside   = sync.OnceValue(func() *EndpointTLS {
		return &EndpointTLS{Config: suiteEndpoint().Config, HeaderInside: true}
	})
)

// shakeHands returns c, or a connection over c that speaks TLS as the suite does. If the handshake fails, each read and
// write of the result says so.
func shakeHands(c *net.TCPConn, isServer bool) testConn {
	b := &eofConn{TCPConn: c}
	var s *tls.Conn
	switch {
	case isServer && encrypted.endpoint:
		s = tls.Server(b, serverConfig(encrypted.version))
	case !isServer && encrypted.client:
		s = tls.Client(b, clientConfig(encrypted.version))
	default:
		return c
	}
	_ = s.Handshake()
	return &tlsConn{Conn: s, bare: b}
}

// tlsEngines are the engines that speak TLS.
var tlsEngines = []string{"auto", "portable"}

// The tests of connections hold as well if TLS is spoken at one end or at both.
func TestConformanceWithTLS(t *testing.T) {
	onlyEngines = tlsEngines
	t.Cleanup(func() {
		encrypted.client, encrypted.endpoint, encrypted.denies, encrypted.version = false, false, false, 0
		onlyEngines = nil
	})
	for _, ends := range []struct {
		name             string
		client, endpoint bool
		denies           bool
		version          uint16
	}{
		{"in", true, false, false, tls.VersionTLS13},
		{"out", false, true, true, tls.VersionTLS13},
		{"both", true, true, false, tls.VersionTLS13},
		{"both by TLS 1.2", true, true, false, tls.VersionTLS12},
	} {
		encrypted.client, encrypted.endpoint, encrypted.version = ends.client, ends.endpoint, ends.version
		encrypted.denies = ends.denies
		t.Run(ends.name, func(t *testing.T) {
			for _, one := range testsWithTLS {
				if one.once && ends.name != "both" {
					continue
				}
				t.Run(one.name, one.test)
			}
		})
	}
}

// The tests of connections hold as well if endpoints get a PROXY header inside TLS, as in a service mesh.
func TestConformanceWithHeadersInsideTLS(t *testing.T) {
	onlyEngines, proxyHeaders = tlsEngines, true
	t.Cleanup(func() {
		encrypted.client, encrypted.endpoint, encrypted.version, encrypted.inside = false, false, 0, false
		onlyEngines, proxyHeaders = nil, false
	})
	encrypted.endpoint, encrypted.inside, encrypted.version = true, true, tls.VersionTLS13
	for _, test := range []func(*testing.T){
		TestTCPBulkBothWays, TestTCPHalfCloseByClientKeepsReturnTraffic, TestTCPHalfCloseByServerKeepsRequestTraffic,
		TestTCPResetByClientReachesServer, TestTCPResetByServerReachesClientAfterItsBytes,
		TestTCPEarlyAnswerIsDelivered, TestTCPBackPressure, TestQueuedClientMaySendAndHalfClose,
		TestResetBeforeAnythingMovedCostsNobody, TestResetAfterTheClientSpokeCountsAgainstTheEndpoint,
	} {
		test(t)
	}
	encrypted.client = true
	TestTCPRandomConnections(t)
}

// testsWithTLS are the tests that hold with TLS. A test whose clients come while Lictor does not accept them cannot be
// here, because these clients wait for their handshake.
var testsWithTLS = []struct {
	name string
	test func(*testing.T)
	once bool // one kind of ends is enough
}{
	{"rotates", TestTCPRotates, false},
	{"bulk both ways", TestTCPBulkBothWays, false},
	{"half-close by client", TestTCPHalfCloseByClientKeepsReturnTraffic, false},
	{"half-close by server", TestTCPHalfCloseByServerKeepsRequestTraffic, false},
	{"half-close is bounded", TestTCPHalfCloseIsBounded, false},
	{"reset by client", TestTCPResetByClientReachesServer, false},
	{"reset by server", TestTCPResetByServerReachesClientAfterItsBytes, false},
	{"early answer", TestTCPEarlyAnswerIsDelivered, false},
	{"dead endpoint", TestTCPDeadEndpointIsNotNoticedByClients, true},
	{"nobody serves", TestTCPClientIsResetWhenNobodyServes, true},
	{"accept never waits", TestTCPAcceptNeverWaitsForADial, true},
	{"dial that hangs", TestTCPDialThatHangsGoesToTheNextEndpoint, true},
	{"idle timeout", TestTCPIdleTimeout, false},
	{"back-pressure", TestTCPBackPressure, false},
	{"descriptors", TestTCPIdlePairHoldsTwoDescriptors, true},
	{"host name", TestTCPEndpointByHostName, true},
	{"many clients", TestTCPManyClientsAtOnce, true},
	{"queued client half-closes", TestQueuedClientMaySendAndHalfClose, false},
	{"queue for room", TestClientsQueueForRoom, false},
	{"wait for the first endpoint", TestClientsWaitForTheFirstEndpoint, true},
	{"reset before anything moved", TestResetBeforeAnythingMovedCostsNobody, false},
	{"reset after the client spoke", TestResetAfterTheClientSpokeCountsAgainstTheEndpoint, false},
	{"leaving endpoints", TestLeavingEndpointsConnections, true},
	{"random connections", TestTCPRandomConnections, false},
}
