package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// This file has the openings of the two ends of a pair, see docs/ends.md.

// greet reads the PROXY header that a client must send, and returns what the header says. rest are the bytes that came
// behind the header. If the client has gone, the error is a clientError.
func (t *tcpSocket) greet(client streamConn, h hop, a *AcceptProxy) (_ hop, rest []byte, err error) {
	_ = client.SetReadDeadline(time.Now().Add(a.timeout()))
	stop := context.AfterFunc(t.cutting, func() { _ = client.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		if stop() {
			_ = client.SetReadDeadline(time.Time{})
		}
	}()
	b := make([]byte, 0, 512)
	for {
		b = slices.Grow(b, 1)
		n, err := client.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case err == io.EOF && len(b) == 0:
			return h, nil, &clientError{} // such as the check of a proxy that only connects
		case err == io.EOF:
			return h, nil, fmt.Errorf("%w: the client ended within the header", errProxyHeader)
		case t.cutting.Err() != nil:
			return h, nil, t.cutting.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return h, nil, fmt.Errorf("%w: no header came within %v", errProxyHeader, a.timeout())
		case err != nil:
			return h, nil, &clientError{rootOf(err)}
		}
		said, size, err := proxyproto.Parse(b)
		if err != nil {
			return h, nil, fmt.Errorf("%w: %w", errProxyHeader, err)
		}
		if size > 0 {
			if said.Src.IsValid() {
				h.client, h.server = said.Src, said.Dst
			}
			h.tlvs = said.TLVs // a part of b, which nothing changes any more
			return h, b[size:], nil
		}
	}
}

// announce writes the PROXY header of the pair, if it has one, with the client's bytes that are there already.
func (m *mover) announce() error {
	header, first := m.pair.header, m.pair.untaken
	if header == nil {
		return m.write(first)
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	all := append(append(buf[:0], header...), first...)
	var failed error
	if len(first) == 0 && !isSecure(m.src) && connReadable(m.src) { // so the read does not wait
		var n int
		n, failed = m.src.Read(buf[len(header):])
		all = buf[:len(header)+n]
	}
	m.opening = len(header)
	if err := m.write(all); err != nil {
		return err
	}
	if end, goOn := m.pair.expired(m, source, failed); end {
		return errIdle
	} else if goOn {
		return nil
	}
	return failed // io.EOF, or the failure of the client
}

// withoutOpening returns how many of n bytes that were written came from the source. The others belong to the opening.
func (m *mover) withoutOpening(n int) int {
	header := min(n, m.opening)
	m.opening -= header
	return n - header
}
