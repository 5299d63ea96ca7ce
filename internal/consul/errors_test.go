package consul

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
