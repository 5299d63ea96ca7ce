package config

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestConstantsInPagesAreTrue holds figures that pages name, and that cannot be configured, to the constants of the
// source. If a constant changes, correct what the pages say, and then this table.
func TestConstantsInPagesAreTrue(t *testing.T) {
	for _, tt := range []struct {
		file, name string
		value      any // an int, a float64 or a time.Duration
		pages      map[string]string
	}{
		{"proxy/dial.go", "maxDials", 3, map[string]string{
			"README.md": "up to 3 instances are tried", "docs/failures.md": "up to 3 instances are tried",
			"docs/comparison.md": "yes, up to 3", "docs/architecture.md": "After three, it resets"}},
		{"lb/budget.go", "retryShare", 0.2, map[string]string{
			"docs/failures.md": "limited to 20 % of new clients", "docs/glossary.md": "20 % of new clients"}},
		{"lb/budget.go", "retryFloor", 10.0, map[string]string{
			"docs/failures.md": "plus 10 a second", "docs/glossary.md": "plus 10 a second"}},
		{"lb/health.go", "minEjection", time.Second, map[string]string{"docs/failures.md": "tries it after 1 s,"}},
		{"lb/health.go", "maxEjection", time.Minute, map[string]string{"docs/failures.md": "up to 1 minute"}},
		{"lb/health.go", "quickEjection", 50 * time.Millisecond, map[string]string{
			"docs/failures.md": "tried every 0.05 s during the first second"}},
		{"lb/health.go", "quickEjections", 20, map[string]string{
			"docs/failures.md": "tried every 0.05 s during the first second"}},
		{"proxy/timing.go", "peerLookEvery", time.Minute, map[string]string{
			"docs/failures.md": "within two to three minutes"}},
		{"proxy/budget.go", "maxLookups", 32, map[string]string{"docs/failures.md": "At most 32 lookups"}},
		{"proxy/pipe_linux.go", "pipeSize", 1 << 20, map[string]string{"README.md": "one pipe of 1 MiB"}},
		{"discovery/options.go", "defaultWait", 45 * time.Second, map[string]string{
			"docs/failures.md": "every 45 seconds", "docs/architecture.md": "after 45 seconds"}},
		{"discovery/slots.go", "maxStale", 5 * time.Second, map[string]string{"README.md": "at most 5 seconds later"}},
		{"internal/daemon/reload.go", "firstAnswer", 2 * time.Second, map[string]string{
			"docs/architecture.md": "up to 2 seconds for their first set"}},
		{"internal/admin/admin.go", "maxConnections", 64, map[string]string{"docs/api.md": "At most 64 connections"}},
		{"internal/admin/admin.go", "maxHeader", 16 << 10, map[string]string{
			"docs/api.md": "at most 16 KiB of headers"}},
		{"internal/admin/admin.go", "maxBody", 64 << 10, map[string]string{"docs/api.md": "64 KiB of body"}},
		{"config/config.go", "DefaultMaxWatches", 150, map[string]string{"README.md": "up to\n  150 (`max_watches`)"}},
	} {
		if got, want := declared(t, tt.file, tt.name), constantOf(tt.value); !equalValues(got, want) {
			t.Errorf("%s: %s is %v by now, not %v: correct %v, and this table", tt.file, tt.name, got, want,
				mapKeys(tt.pages))
		}
		for page, text := range tt.pages {
			if !strings.Contains(readPage(t, filepath.Join("..", page)), text) {
				t.Errorf("%s does not say %q any more: correct this table, or the page (%s in %s is %v)", page, text,
					tt.name, tt.file, tt.value)
			}
		}
	}
}

// TestPackagesHaveTheDefaultsOfTheConfiguration compares defaults that a package has for its own zero values with those
// of the configuration. For a method, the value must be one of those in its body.
func TestPackagesHaveTheDefaultsOfTheConfiguration(t *testing.T) {
	for _, tt := range []struct{ config, file, name string }{
		{"DefaultConnectTimeout", "proxy/proxy.go", "connectTimeout"},
		{"DefaultAcceptProxyTimeout", "proxy/proxyheader.go", "timeout"},
		{"DefaultIdleTimeoutTCP", "proxy/proxy.go", "idleTimeout"},
		{"DefaultIdleTimeoutUDP", "proxy/proxy.go", "idleTimeout"},
		{"DefaultHalfCloseTimeout", "proxy/proxy.go", "halfCloseTimeout"},
		{"DefaultMaxAgeGrace", "proxy/proxy.go", "maxAgeGrace"},
		{"DefaultMaxSessions", "proxy/proxy.go", "maxSessions"},
		{"DefaultMaxDrop", "discovery/guard.go", "defaultMaxDrop"},
		{"DefaultDropHold", "discovery/guard.go", "defaultHold"},
		{"DefaultHoldMax", "discovery/guard.go", "defaultHoldMax"},
		{"DefaultMaxWatches", "discovery/options.go", "defaultMaxWatches"},
		{"DefaultFailbackHold", "discovery/options.go", "defaultFailbackHold"},
		{"DefaultConsulAddress", "internal/consul/options.go", "defaultAddress"},
	} {
		want := declared(t, "config/config.go", tt.config)
		if got := declaredAll(t, tt.file, tt.name); !slices.ContainsFunc(got, func(v constant.Value) bool {
			return equalValues(v, want)
		}) {
			t.Errorf("%s: %s is %v, but the configuration's %s is %v", tt.file, tt.name, got, tt.config, want)
		}
	}
}

// declared returns the value of a constant that a file declares.
func declared(t *testing.T, file, name string) constant.Value {
	t.Helper()
	all := declaredAll(t, file, name)
	if len(all) != 1 {
		t.Fatalf("%s: the constant %s has the values %v, want one", file, name, all)
	}
	return all[0]
}

// declaredAll returns the value of a constant that a file declares, or the values of all constant expressions in the
// body of a function.
func declaredAll(t *testing.T, file, name string) (all []constant.Value) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", file), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	collect := func(n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok {
			if v := evaluate(e); v != nil {
				all = append(all, v)
				return false
			}
		}
		return true
	}
	for _, d := range parsed.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.Name == name {
				ast.Inspect(d.Body, collect)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.ValueSpec); ok && len(s.Values) == len(s.Names) {
					if i := slices.IndexFunc(s.Names, func(n *ast.Ident) bool { return n.Name == name }); i >= 0 {
						ast.Inspect(s.Values[i], collect)
					}
				}
			}
		}
	}
	return all
}

var durations = map[string]time.Duration{
	"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour,
}

// evaluate returns the value of a constant expression of literals and units of time, or nil.
func evaluate(e ast.Expr) constant.Value {
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0)
	case *ast.SelectorExpr:
		if d, ok := durations[e.Sel.Name]; ok {
			return constant.MakeInt64(int64(d))
		}
	case *ast.BinaryExpr:
		x, y := evaluate(e.X), evaluate(e.Y)
		switch {
		case x == nil || y == nil:
		case e.Op == token.SHL:
			n, _ := constant.Uint64Val(y)
			return constant.Shift(x, e.Op, uint(n))
		case e.Op == token.MUL, e.Op == token.ADD, e.Op == token.SUB:
			return constant.BinaryOp(x, e.Op, y)
		}
	}
	return nil
}

// constantOf returns v, an int, a float64 or a time.Duration, as a constant.
func constantOf(v any) constant.Value {
	switch v := v.(type) {
	case time.Duration:
		return constant.MakeInt64(int64(v))
	case int:
		return constant.MakeInt64(int64(v))
	case float64:
		return constant.MakeFloat64(v)
	}
	return constant.MakeUnknown()
}

// equalValues reports whether two constants are the same text, or the same number as far as a float64 tells.
func equalValues(a, b constant.Value) bool {
	if a.Kind() == constant.String || b.Kind() == constant.String {
		return a.Kind() == b.Kind() && constant.Compare(a, token.EQL, b)
	}
	x, _ := constant.Float64Val(constant.ToFloat(a))
	y, _ := constant.Float64Val(constant.ToFloat(b))
	return x == y
}
