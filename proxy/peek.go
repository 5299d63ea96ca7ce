package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/clienthello"
	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// peekTimeout is how long a client of a shared listener may take to send its ClientHello. A client whose first packet
// is lost twice sends it again within 3 s.
const peekTimeout = 5 * time.Second

// The first messages of PostgreSQL that ask whether the server encrypts. The server answers with one byte: see
// "Message Formats" in its manual.
const (
	sslRequest    = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	gssEncRequest = "\x00\x00\x00\x08\x04\xd2\x16\x30"

	sslAccepted = 'S' // the answer of a server that speaks TLS
	sslDenied   = 'N'
)

// A peek is the progress of a client of a shared listener to its ClientHello. Both engines use it.
type peek struct {
	scanner   clienthello.Scanner
	asked     bool // the client has sent sslRequest, and got sslAccepted
	deniedGSS bool // the client has sent gssEncRequest, and got sslDenied
}

// A firstMessage is what a client sends to choose its service.
type firstMessage struct {
	whole bool   // false: more bytes are needed
	tls   bool   // whether the message is a ClientHello
	name  []byte // server name; empty if the client sent none
}

// look looks at b, the bytes of the client so far, without requests that were answered. If answer is not zero, b is a
// request of PostgreSQL: the caller sends the answer, and forgets b. After an error the client is refused. More bytes
// are never needed if b has clienthello.MaxLength.
func (k *peek) look(b []byte) (answer byte, m firstMessage, err error) {
	if !k.asked {
		answer, wait, err := k.request(b)
		if answer != 0 || wait || err != nil {
			return answer, m, err
		}
	}
	name, done, err := k.scanner.Scan(b)
	switch {
	case errors.Is(err, clienthello.ErrNotTLS) && k.asked:
		return 0, m, fmt.Errorf("%w: the client asked for TLS as PostgreSQL's do, and then sent no ClientHello",
			errNoRoute)
	case errors.Is(err, clienthello.ErrNotTLS):
		return 0, firstMessage{whole: true}, nil
	case err != nil:
		return 0, m, fmt.Errorf("%w: %w", errNoRoute, err)
	}
	return 0, firstMessage{whole: done, tls: done, name: name}, nil
}

// request looks for a request of PostgreSQL in b. If wait is true, b may be the beginning of one.
//
// Nothing may come with a request. Bytes that come before the answer are not encrypted, and may be of somebody between
// the client and this host (CVE-2021-23214).
func (k *peek) request(b []byte) (answer byte, wait bool, err error) {
	n := min(len(b), len(sslRequest))
	ssl, gss := string(b[:n]) == sslRequest[:n], string(b[:n]) == gssEncRequest[:n]
	switch {
	case !ssl && !gss:
		return 0, false, nil
	case n < len(sslRequest):
		return 0, true, nil
	case len(b) > n:
		return 0, false, fmt.Errorf("%w: the client sent bytes behind its request for encryption, "+
			"before it had an answer", errNoRoute)
	case gss && k.deniedGSS:
		return 0, false, fmt.Errorf("%w: the client asked for GSSAPI encryption twice", errNoRoute)
	case gss:
		k.deniedGSS = true
		return sslDenied, false, nil
	}
	k.asked = true
	return sslAccepted, false, nil
}

// A guess says whether a client of AcceptTLS.Plain speaks TLS.
type guess int

const (
	needsMore guess = iota // the bytes do not tell yet
	speaksPlain
	speaksTLS
)

// guessOf looks at b, the first bytes of a client. guessSize bytes always suffice. whole says that no more will come.
func guessOf(b []byte, whole bool) guess {
	var s clienthello.Scanner
	switch _, _, err := s.Scan(b); {
	case errors.Is(err, clienthello.ErrNotTLS), len(b) == 0 && whole:
		return speaksPlain
	case len(b) < guessSize && !whole:
		return needsMore
	}
	return speaksTLS
}

// guessSize is the size of the header of a record and the type of the message in it.
const guessSize = 6

// noDescriptors returns the error for a client of s that got no descriptors after its service was chosen.
func noDescriptors(s *service) error {
	return fmt.Errorf("%w: service %q gets no more", errOutOfDescriptors, s.name())
}

// errNoTLS is the error of an endpoint that does not accept sslRequest.
var errNoTLS = errors.New("the endpoint refuses TLS")

// takesTLS returns an error unless answer is that of a server that speaks TLS.
func takesTLS(answer byte) error {
	switch answer {
	case sslAccepted:
		return nil
	case sslDenied:
		return fmt.Errorf("%w: turn on ssl in the configuration of that PostgreSQL", errNoTLS)
	}
	return fmt.Errorf("%w: it answered PostgreSQL's request for TLS with %q", errNoTLS, answer)
}

// tlsRequest returns what an endpoint of s gets first if the client of h has sent sslRequest: a PROXY header, if the
// service sends one, and sslRequest. Otherwise tlsRequest returns nil.
func (s *service) tlsRequest(h *hop) []byte {
	if !h.asksTLS {
		return nil
	}
	var b []byte
	if v := s.spec.Load().SendProxy; v != proxyproto.None {
		b = appendProxyHeader(b, v, h)
	}
	return append(b, sslRequest...)
}

// askTLS sends request to an endpoint, which must accept within timeout.
func askTLS(ctx context.Context, c streamConn, request []byte, timeout time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(timeout))
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var answer [1]byte
	_, err := c.Write(request)
	if err == nil {
		_, err = io.ReadFull(c, answer[:])
	}
	switch {
	case err == io.EOF:
		return syscall.ECONNRESET
	case err != nil:
		return err
	}
	if err = takesTLS(answer[0]); err != nil {
		return err
	}
	return c.SetDeadline(time.Time{})
}
