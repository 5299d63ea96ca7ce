package discovery

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
)

func TestKindsOfErrors(t *testing.T) {
	tests := []struct {
		err  error
		want kind
	}{
		{io.EOF, lost},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, lost},
		{&timeoutError{}, lost},
		{errNoIndex, lost},
		{&statusError{500, "No cluster leader"}, lost},
		{&statusError{500, "No known Consul servers"}, lost},
		{&statusError{503, "error reading from server: EOF"}, lost},
		{&statusError{404, "Invalid URL path"}, lost},
		{&statusError{500, "No path to datacenter"}, unable},
		{&statusError{429, "rate limit exceeded"}, throttled},
		{&statusError{403, "ACL not found"}, denied},
		{&statusError{401, ""}, denied},
		{&statusError{500, "rpc error making call: ACL not found"}, denied},
		{&missingRightError{}, denied},
		{&statusError{400, "Invalid query parameter"}, refused},
		{&statusError{500, `rpc error making call: Failed to create boolean expression evaluator: Selector "x" is not valid`}, refused},
	}
	for _, tt := range tests {
		if got := kindOf(fmt.Errorf("ask: %w", tt.err)); got != tt.want {
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
		if got := oneLine(tt.text); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
