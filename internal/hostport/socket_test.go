package hostport

import (
	"strings"
	"testing"
)

func TestBadSocketPath(t *testing.T) {
	long := "/" + strings.Repeat("x", 106)
	for _, p := range []string{"/a", "/run/pg.sock", "/run/a b/.s.PGSQL.5432", "/ü", long} {
		if problem := BadSocketPath(p); problem != "" {
			t.Errorf("%q: %s", p, problem)
		}
	}
	for p, want := range map[string]string{
		"": "absolute", "a": "absolute", "./a": "absolute", "@a": "absolute", "\x00a": "absolute",
		"/": "slash", "//a": "slash", "/a/": "slash", "/a//b": "slash", "/a/../b": "..", "/a/.": ".", "/..": "..",
		long + "x": "108 bytes", "/a\nb": "printed", "/a\x00": "printed", "/\xff": "printed", "/\u202e": "printed",
	} {
		if problem := BadSocketPath(p); !strings.Contains(problem, want) {
			t.Errorf("%q: got %q, want %q", p, problem, want)
		}
	}
}
