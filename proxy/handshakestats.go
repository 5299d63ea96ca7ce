package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A HandshakeFailure is the reason why a TLS handshake with an endpoint has failed.
type HandshakeFailure int

// The reasons why handshakes fail.
const (
	HandshakeOther       HandshakeFailure = iota // for example, the endpoint speaks no TLS
	HandshakeCertificate                         // Lictor does not accept the endpoint's certificate
	HandshakeAlert                               // the endpoint has refused by an alert
	HandshakeEnded                               // the endpoint has closed or reset the connection
	HandshakeTimeout                             // it was not over within the connect timeout
	HandshakeNotReady                            // this host had no certificate or no authorities yet
	handshakeFailures    int              = iota
)

// String returns a word for the reason, as in metrics.
func (f HandshakeFailure) String() string {
	return [...]string{"other", "certificate", "alert", "ended", "timeout", "not_ready"}[f]
}

// Handshakes counts the TLS handshakes of a service with its endpoints. Those of active checks do not count.
type Handshakes struct {
	Full     int64                    // handshakes that succeeded, without Resumed
	Resumed  int64                    // handshakes that resumed an earlier session
	Time     time.Duration            // how long Full and Resumed took in total, with the waits for the endpoint
	FailedBy [handshakeFailures]int64 // handshakes that failed, by HandshakeFailure
}

// handshakeCounters are the counters of Handshakes.
type handshakeCounters struct {
	full, resumed, nanoseconds atomic.Int64
	failed                     [handshakeFailures]atomic.Int64
}

// count counts a handshake over c that took so long and has ended with err. After an error c may be nil.
func (h *handshakeCounters) count(c *tls.Conn, took time.Duration, err error) {
	if err != nil {
		h.failed[handshakeFailureOf(err)].Add(1)
		return
	}
	if c.ConnectionState().DidResume {
		h.resumed.Add(1)
	} else {
		h.full.Add(1)
	}
	h.nanoseconds.Add(int64(took))
}

func (h *handshakeCounters) addTo(sum *Handshakes) {
	sum.Full += h.full.Load()
	sum.Resumed += h.resumed.Load()
	sum.Time += time.Duration(h.nanoseconds.Load())
	for i := range h.failed {
		sum.FailedBy[i] += h.failed[i].Load()
	}
}

// handshakeFailureOf returns the reason for the error of a handshake with an endpoint.
func handshakeFailureOf(err error) HandshakeFailure {
	var op *net.OpError
	switch {
	case errors.Is(err, lb.ErrNotReady):
		return HandshakeNotReady
	case errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, new(x509.HostnameError)),
		errors.As(err, new(x509.UnknownAuthorityError)), errors.As(err, new(x509.CertificateInvalidError)):
		return HandshakeCertificate
	case errors.As(err, &op) && op.Op == "remote error":
		return HandshakeAlert
	case errors.Is(err, os.ErrDeadlineExceeded):
		return HandshakeTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE):
		return HandshakeEnded
	}
	return HandshakeOther
}
