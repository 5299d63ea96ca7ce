package proxy

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A recordWriter encrypts records of a client of TLS 1.3 with TLS_AES_128_GCM_SHA256. See RFC 8446, sections 5.2, 5.3
// and 7.3.
type recordWriter struct {
	aead cipher.AEAD
	iv   []byte
	next uint64 // the number of the next record
}

// newRecordWriter returns a writer for a client that has sent no data. keyLog is what its KeyLogWriter has got.
func newRecordWriter(t *testing.T, keyLog io.Reader) *recordWriter {
	t.Helper()
	var secret []byte
	for lines := bufio.NewScanner(keyLog); lines.Scan(); {
		if f := strings.Fields(lines.Text()); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, _ = hex.DecodeString(f[2])
		}
	}
	expand := func(label string, n int) []byte {
		label = "tls13 " + label
		b, err := hkdf.Expand(sha256.New, secret, "\x00"+string([]byte{byte(n), byte(len(label))})+label+"\x00", n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	block, err := aes.NewCipher(expand("key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return &recordWriter{aead: aead, iv: expand("iv", aead.NonceSize())}
}

// seal returns a record of the given type.
func (w *recordWriter) seal(kind byte, content ...byte) []byte {
	inner := append(content, kind)
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+w.aead.Overhead()))
	nonce := bytes.Clone(w.iv)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^w.next)
	w.next++
	return w.aead.Seal(header, nonce, inner, header)
}

// The end of a client arrives by close_notify, without a FIN, perhaps together with the last data. Java says
// user_canceled ahead of it (RFC 8446, section 6.1).
func TestTLSEndWithoutFIN(t *testing.T) {
	const data, alert, warning, userCanceled, closeNotify = 23, 21, 1, 90, 0
	for _, test := range []struct {
		name            string
		canceled, apart bool
	}{
		{"with the data", false, false},
		{"after the data", false, true},
		{"with the data, as by Java", true, false},
		{"after the data, as by Java", true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				told, got := records(h), make(chan string, 1)
				at := h.serve(Service{AcceptTLS: acceptTLS(serverConfig(0))}, tcpServer(t, func(c testConn) {
					io.WriteString(c, "x")
					readsAll(got)(c)
					io.WriteString(c, "bye")
				}))
				var keyLog bytes.Buffer
				config := clientConfig(tls.VersionTLS13)
				config.KeyLogWriter = &keyLog
				c := dialTLS(t, at, config)
				if s := c.ConnectionState(); s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
					testproc.Cannot(t, "the test does not know the cipher suite",
						errors.New(tls.CipherSuiteName(s.CipherSuite)))
				}
				io.ReadFull(c, make([]byte, 1)) // the pair relays
				w := newRecordWriter(t, &keyLog)
				b := w.seal(data, []byte("hello")...)
				send := func(more []byte) {
					if test.apart {
						c.bare.Write(b)
						eventually(t, equals("bytes", func() int64 { return h.stats().BytesUp }, 5))
						b = nil
					}
					b = append(b, more...)
				}
				if test.canceled {
					send(w.seal(alert, warning, userCanceled))
				}
				send(w.seal(alert, warning, closeNotify))
				c.bare.Write(b)
				select {
				case s := <-got:
					if s != "hello, false" {
						t.Errorf("the endpoint got %q, want hello and a proper end", s)
					}
				case <-time.After(time.Minute):
					t.Fatal("the endpoint does not get the end")
				}
				if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
					t.Errorf("the client got %q, %v, want bye and a proper end", b, err)
				}
				c.bare.Close()
				if r := <-told; r.Reason != ReasonClientClosed {
					t.Errorf("got %+v, want %s", r, ReasonClientClosed)
				}
			})
		})
	}
}
