package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// A Client sends requests to a Server.
type Client struct {
	address Address
	token   string
	http    *http.Client
}

// NewClient returns a client of the server at a. An empty token means that no token is sent. If another user's process
// listens at a Unix socket and trust does not allow that user, requests fail with a *StrangerError before anything is
// sent. Over TCP, the client cannot check which process answers.
func NewClient(a Address, token string, trust Trust) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: 5 * time.Second}
		if a.Socket == "" {
			return d.DialContext(ctx, "tcp", a.TCP.String())
		}
		conn, err := d.DialContext(ctx, "unix", a.Socket)
		if err != nil {
			return nil, err
		}
		if err := trust.checkPeer(conn, a.Socket); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	}
	return &Client{address: a, token: token,
		http: &http.Client{Transport: &http.Transport{DialContext: dial, Proxy: nil}}}
}

// ParseAddress parses "host:port", where host is an IP address or localhost, or "unix:///path".
func ParseAddress(text string) (Address, error) {
	if path, is := strings.CutPrefix(text, "unix://"); is {
		if !strings.HasPrefix(path, "/") {
			return Address{}, fmt.Errorf("%q: the path of a socket must be absolute", text)
		}
		return Address{Socket: path}, nil
	}
	if port, is := strings.CutPrefix(text, "localhost:"); is {
		text = "127.0.0.1:" + port
	}
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return Address{}, fmt.Errorf("%q is neither an IP address with a port nor unix:///path", text)
	}
	return Address{TCP: addr}, nil
}

// Address returns the address of the server.
func (c *Client) Address() Address { return c.address }

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// An APIError is an error that the server returned.
type APIError struct {
	Code int // HTTP status code
	Text string
}

func (e *APIError) Error() string { return e.Text }

// Get requests path, such as "/v1/status", and decodes the answer into v.
func (c *Client) Get(ctx context.Context, path string, v any) error {
	return c.do(ctx, http.MethodGet, path, nil, v)
}

// Post sends body to path and decodes the answer into v. A nil body sends none, and a nil v ignores the answer.
func (c *Client) Post(ctx context.Context, path string, body, v any) error {
	return c.do(ctx, http.MethodPost, path, body, v)
}

// maxAnswer limits an answer's size in bytes. No valid answer is that large.
const maxAnswer = 256 << 20

func (c *Client) do(ctx context.Context, method, path string, body, v any) error {
	var send io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(text)
	}
	host := "lictor"
	if c.address.Socket == "" {
		host = c.address.TCP.String()
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, send)
	if err != nil {
		return err
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return apiError(answer.StatusCode, text)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s does not answer like lictor: %w", c.address, err)
	}
	return nil
}

func apiError(code int, text []byte) error {
	var body struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &body) != nil || body.Error == "" {
		body.Error = fmt.Sprintf("HTTP status %d", code)
	}
	return &APIError{Code: code, Text: body.Error}
}
