//go:build !unix

package proxy

import "net"

// A transport is a session's socket. One goroutine may send while another goroutine receives.
type transport struct {
	conn *net.UDPConn
}

func (t *transport) use(c *net.UDPConn) error {
	t.conn = c
	return nil
}

// send sends one datagram.
func (t *transport) send(b []byte) error {
	_, err := t.conn.Write(b)
	return err
}

// receive waits for a datagram. The caller must free it.
func (t *transport) receive() (*datagram, error) {
	d := datagramPool.Get().(*datagram)
	n, err := t.conn.Read(d.buf[:])
	if err != nil {
		d.free()
		return nil, err
	}
	d.n = n
	return d, nil
}
