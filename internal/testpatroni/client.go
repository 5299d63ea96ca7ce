//go:build unix

package testpatroni

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// ReadOnly is the SQLSTATE of a write on a server in recovery: "cannot execute ... in a read-only transaction".
const ReadOnly = "25006"

// An Error is an error that PostgreSQL returned.
type Error struct {
	Code    string // SQLSTATE
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Message + " (" + e.Code + ")" }

// IsReadOnly reports whether err says that the server does not accept writes.
func IsReadOnly(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == ReadOnly
}

// A Client is a connection to PostgreSQL. The Client supports only trust authentication and simple queries, and has no
// timeouts. Only Close is safe for concurrent use.
type Client struct {
	conn net.Conn
	r    *bufio.Reader
}

// Connect connects to the server at addr, "host:port". Connect fails when ctx ends.
func Connect(ctx context.Context, addr string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	c := &Client{conn, bufio.NewReader(conn)}
	const version3 = 3 << 16
	startup := binary.BigEndian.AppendUint32(nil, version3)
	startup = append(startup, "user\x00"+superuser+"\x00database\x00postgres\x00\x00"...)
	if err = c.send(0, startup); err == nil {
		_, err = c.result()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// Close closes the connection. A query under way fails.
func (c *Client) Close() { _ = c.conn.Close() }

// Query executes one statement and returns the result's rows.
func (c *Client) Query(sql string) ([][]string, error) {
	if err := c.send('Q', append([]byte(sql), 0)); err != nil {
		return nil, err
	}
	return c.result()
}

// Notification waits for the next notification on a channel that the connection listens to, and returns its payload.
// Notification fails when ctx ends.
func (c *Client) Notification(ctx context.Context) (string, error) {
	defer context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })()
	for {
		kind, body, err := c.receive()
		if err != nil {
			return "", err
		}
		if kind != 'A' || len(body) < 4 {
			continue
		}
		_, payload, _ := strings.Cut(string(body[4:]), "\x00") // after a process ID and the channel
		return strings.TrimSuffix(payload, "\x00"), nil
	}
}

// send sends one message. Use kind 0 for the startup message, which has no kind.
func (c *Client) send(kind byte, body []byte) error {
	var message []byte
	if kind != 0 {
		message = append(message, kind)
	}
	message = binary.BigEndian.AppendUint32(message, uint32(len(body)+4))
	_, err := c.conn.Write(append(message, body...))
	return err
}

// result reads until the server is ready for the next query, and returns the rows.
func (c *Client) result() (rows [][]string, err error) {
	for {
		kind, body, readErr := c.receive()
		if readErr != nil {
			return rows, errors.Join(err, readErr)
		}
		switch kind {
		case 'D':
			rows = append(rows, row(body))
		case 'E':
			err = errorOf(body)
		case 'R':
			if binary.BigEndian.Uint32(body) != 0 {
				return nil, errors.New("the server requires more than trust authentication")
			}
		case 'Z':
			return rows, err
		}
	}
}

func (c *Client) receive() (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > 1<<20 {
		return 0, nil, fmt.Errorf("a message of %d bytes: is this PostgreSQL?", n)
	}
	body = make([]byte, n-4)
	_, err = io.ReadFull(c.r, body)
	return head[0], body, err
}

// row returns the values of a DataRow message. A null value becomes an empty string.
func row(body []byte) (values []string) {
	n := binary.BigEndian.Uint16(body)
	for body = body[2:]; n > 0; n-- {
		length := int32(binary.BigEndian.Uint32(body))
		body = body[4:]
		if length < 0 {
			values = append(values, "")
			continue
		}
		values = append(values, string(body[:length]))
		body = body[length:]
	}
	return values
}

// errorOf parses an ErrorResponse message.
func errorOf(body []byte) error {
	e := &Error{}
	for field := range strings.SplitSeq(string(body), "\x00") {
		switch {
		case strings.HasPrefix(field, "C"):
			e.Code = field[1:]
		case strings.HasPrefix(field, "M"):
			e.Message = field[1:]
		}
	}
	return e
}
