package discovery

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestKindsOfErrors(t *testing.T) {
	tests := []struct {
		err  error
		want kind
	}{
		{io.EOF, lost},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, lost},
		{errSilent, lost},
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
		{&filteredError{}, denied},
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
		if got := readable(tt.text); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestCheckTellsRefusalFromSilence(t *testing.T) {
	tests := []struct {
		name    string
		reply   reply
		want    string // in the error; empty: none
		refused bool
	}{
		{"answered", ok(20), "", false},
		{"bad filter", status(500, "rpc error: Failed to create boolean expression evaluator: 1:4 (3): no match found"),
			"consul refuses the query: filter: 1:4 (3): no match found", true},
		{"bad argument", status(400, "Invalid query parameter: \"ns\""), `consul refuses the query: Invalid query parameter: "ns"`, true},
		{"denied", status(403, "ACL not found"), `ask consul for service "web": consul answered 403: ACL not found`, false},
		{"hung", hang, "no answer within 15s", false},
		{"away", fails(io.EOF), "EOF", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := newConsul(ConsulOptions{}.withDefaults(), target{}, &fake{always: tt.reply})
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				err = c.Check(t.Context(), Query{Service: "web"})
				var refusal *RefusedError
				if tt.want == "" && err == nil {
					return
				}
				if err == nil || !strings.Contains(err.Error(), tt.want) || errors.As(err, &refusal) != tt.refused {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if d := time.Since(begin); d > deadlineGrace {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}
