package discovery

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
)

func TestCheckTellsRefusalFromSilence(t *testing.T) {
	tests := []struct {
		name    string
		reply   reply
		want    string // part of the error; empty: no error
		refused bool
	}{
		{"answered", ok(20), "", false},
		{"bad filter", status(500, "rpc error: Failed to create boolean expression evaluator: 1:4 (3): no match found"),
			"consul refuses the query: filter: 1:4 (3): no match found", true},
		{"bad argument", status(400, "Invalid query parameter: \"ns\""),
			`consul refuses the query: Invalid query parameter: "ns"`, true},
		{"denied", status(403, "ACL not found"), `ask consul for service "web": consul answered 403: ACL not found`,
			false},
		{"hung", hang, "no answer within 15s", false},
		{"away", fails(io.EOF), "EOF", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := newConsul(ConsulOptions{}.withDefaults(),
					clientOver(t, ConsulOptions{}, &fake{always: tt.reply}))
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
				if d := time.Since(begin); d > consul.Grace {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}
