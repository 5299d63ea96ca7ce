package consul

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestKindsOfErrors(t *testing.T) {
	tests := []struct {
		err  error
		want Kind
	}{
		{io.EOF, Lost},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, Lost},
		{&TimeoutError{}, Lost},
		{errNoIndex, Lost},
		{&StatusError{500, "No cluster leader"}, Lost},
		{&StatusError{500, "No known Consul servers"}, Lost},
		{&StatusError{503, "error reading from server: EOF"}, Lost},
		{&StatusError{404, "Invalid URL path"}, Lost},
		{&StatusError{500, "No path to datacenter"}, Unable},
		{&StatusError{500, "Connect must be enabled in order to use this endpoint"}, Unable},
		{&StatusError{429, "rate limit exceeded"}, Throttled},
		{&StatusError{403, "ACL not found"}, Denied},
		{&StatusError{401, ""}, Denied},
		{&StatusError{500, "rpc error making call: ACL not found"}, Denied},
		{&MissingRightError{}, Denied},
		{&StatusError{400, "Invalid query parameter"}, Refused},
		{&StatusError{500, `rpc error making call: ` + filterTrouble + `Selector "x" is not valid`}, Refused},
	}
	for _, tt := range tests {
		if got := KindOf(fmt.Errorf("ask: %w", tt.err)); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.err, got, tt.want)
		}
	}
}

func TestCauseIsTheSameForErrorsOfOneCause(t *testing.T) {
	dial := func(port int, err error) error {
		local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
		err = &net.OpError{Op: "dial", Source: local, Err: err}
		return &url.Error{Op: "Get", URL: "http://127.0.0.1:8500", Err: err}
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&StatusError{500, "No cluster leader"}, "status 500"},
		{&StatusError{500, "No known Consul servers"}, "status 500"},
		{&StatusError{503, ""}, "status 503"},
		{&TimeoutError{}, "timeout"},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, "timeout"},
		{dial(1, &tls.CertificateVerificationError{Err: io.EOF}), "certificate"},
		{io.EOF, cutOff},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, cutOff},
		{&net.OpError{Op: "write", Err: syscall.EPIPE}, cutOff},
		{&OverdueError{0, io.EOF}, cutOff},
		{dial(1, syscall.ECONNREFUSED), syscall.ECONNREFUSED.Error()},
		{dial(2, syscall.ECONNREFUSED), syscall.ECONNREFUSED.Error()},
		{dial(1, syscall.EHOSTUNREACH), syscall.EHOSTUNREACH.Error()},
		{io.ErrUnexpectedEOF, "*errors.errorString"},
	} {
		if got := Cause(tt.err); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.err, got, tt.want)
		}
	}
}

// An error is final only if another attempt would fail in the same way.
func TestFinalErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{io.EOF, false},
		{&TimeoutError{}, false},
		{&StatusError{500, "No cluster leader"}, false},
		{&StatusError{503, ""}, false},
		{&StatusError{429, "rate limit exceeded"}, false},
		{&RefusalError{&StatusError{429, "too many concurrent connections"}}, false},
		{&StatusError{500, noConnect + " in order to use this endpoint"}, true},
		{&StatusError{500, "rpc error making call: Permission denied"}, true},
		{&StatusError{403, "Permission denied"}, true},
		{&StatusError{404, "Invalid URL path"}, true},
		{&StatusError{499, ""}, true},
	} {
		if got := isFinal(fmt.Errorf("ask: %w", tt.err)); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.err, got, tt.want)
		}
	}
}

func TestReadableIsOneShortLine(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", ""},
		{"  No\r\n\tcluster  leader\n", "No cluster leader"},
		{"a\x00b\x1b[31mc\xffd", "ab[31mcd"},
		{strings.Repeat("ä", 400), strings.Repeat("ä", 300) + "..."},
	}
	for _, tt := range tests {
		if got := OneLine(tt.text); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
