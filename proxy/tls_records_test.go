package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"testing"
)

// A recordedConn keeps what is read from it.
type recordedConn struct {
	testConn
	read bytes.Buffer
}

func (c *recordedConn) Read(b []byte) (int, error) {
	n, err := c.testConn.Read(b)
	c.read.Write(b[:n])
	return n, err
}

// largest returns the size of the largest record of data among those that begin in the first early bytes, and of the
// others.
func (c *recordedConn) largest(early int) (first, rest int) {
	const data = 23 // RFC 8446, section 5.1
	for at, b := 0, c.read.Bytes(); at+recordHeaderSize <= len(b); {
		size := int(binary.BigEndian.Uint16(b[at+3:]))
		switch {
		case b[at] != data:
		case at < early:
			first = max(first, size)
		default:
			rest = max(rest, size)
		}
		at += recordHeaderSize + size
	}
	return first, rest
}

// recordHeaderSize is the size of the header of a record, from RFC 8446, section 5.1.
const recordHeaderSize = 5

// fullRecords makes package tls send records as large as they can be, as Lictor's own configurations do.
func fullRecords(c *tls.Config) *tls.Config {
	c.DynamicRecordSizingDisabled = true
	return c
}

// What Lictor sends first goes in small records, in both directions, and what follows in those that cost least.
func TestTLSFirstRecordsAreSmall(t *testing.T) {
	const amount, overhead = 4 << 20, 128
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		server := make(chan *recordedConn, 1)
		at := h.serve(Service{
			AcceptTLS:   acceptTLS(fullRecords(serverConfig(version))),
			EndpointTLS: endpointTLS(fullRecords(clientConfig(version))),
		}, tcpServer(t, func(c testConn) {
			r := &recordedConn{testConn: c}
			s := tls.Server(r, serverConfig(version))
			if _, err := io.CopyN(io.Discard, s, amount); err == nil {
				s.Write(make([]byte, amount))
			}
			io.Copy(io.Discard, s)
			server <- r
		}))
		client := &recordedConn{testConn: dialTCP(t, at)}
		c := tls.Client(client, clientConfig(version))
		if _, err := c.Write(make([]byte, amount)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, c, amount); err != nil {
			t.Fatal(err)
		}
		c.Close()
		for name, r := range map[string]*recordedConn{"endpoint": <-server, "client": client} {
			first, rest := r.largest(earlyBytes - earlyRecord)
			if first > earlyRecord+overhead || rest < 2*earlyRecord {
				t.Errorf("%s: records of up to %d bytes first, then of up to %d; want %d, and over %d", name, first,
					rest, earlyRecord, 2*earlyRecord)
			}
		}
	})
}
