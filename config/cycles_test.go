package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// This host's name stands for all addresses of this host. Only a wildcard listener surely has them.
func TestEndlessLoopByHostname(t *testing.T) {
	for _, tt := range []struct {
		hostname, listen, endpoint string
		loops                      bool
	}{
		{"db1.example.com", "0.0.0.0:9000", "DB1.example.com:9000", true},
		{"DB1", "[::]:9000", "db1.:9000", true},
		{"db1", "0.0.0.0:9000", "db2:9000", false},
		{"db1", "0.0.0.0:9000", "db1:9001", false},
		{"db1", "127.0.0.1:9000", "db1:9000", false}, // an instance at another address
		{"", "0.0.0.0:9000", "db1:9000", false},
	} {
		src := fmt.Sprintf("service \"a\" {\n  listen = %q\n  static { endpoints = [%q] }\n}\n", tt.listen, tt.endpoint)
		hostname := func() (string, error) {
			if tt.hostname == "" {
				return "", errors.New("none")
			}
			return tt.hostname, nil
		}
		getenv := func(string) string { return "" }
		_, diags := Parse("test.hcl", []byte(src), Options{Getenv: getenv, Hostname: hostname})
		if loops := strings.Contains(textOf(diags), "Endless loop"); loops != tt.loops {
			t.Errorf("%+v: got\n%s", tt, textOf(diags))
		}
	}
}

// A loop through many services is one problem, at the endpoint that closes the loop.
func TestLongCircleIsOneProblem(t *testing.T) {
	const n = 2000
	var src strings.Builder
	for i := range n {
		const block = "service \"s%d\" {\n  listen = %d\n  static { endpoints = [\"127.0.0.1:%d\"] }\n}\n"
		fmt.Fprintf(&src, block, i, 10000+i, 10000+(i+1)%n)
	}
	l := newLoader(Options{})
	l.parse("test.hcl", []byte(src.String()))
	_, diags := l.finish()
	if len(diags.Diagnostics) != 1 || !strings.Contains(diags.Diagnostics[0].Detail, `"s0"`) {
		t.Errorf("got %d problems, want the one that closes the circle", len(diags.Diagnostics))
	}
}
