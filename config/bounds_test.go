package config

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// deep returns texts that make the parser, or a walk over its result, recurse n times.
func deep(n int) map[string]string {
	r := func(s string) string { return strings.Repeat(s, n) }
	return map[string]string{
		"lists":                  "log_level = " + r("[") + r("]"),
		"lists without an end":   "log_level = " + r("["),
		"lists in lines":         "log_level = " + r("[\n") + r("]\n"),
		"parentheses":            "log_level = " + r("(") + "1" + r(")"),
		"objects":                "log_level = " + r("{ a = ") + "1" + r("}"),
		"objects in lines":       "log_level = " + r("{\n a = ") + "1" + r("\n}"),
		"for expressions":        "log_level = " + r("[for x in ") + "[]" + r(": 1]"),
		"blocks":                 r("a {\n") + r("}\n"),
		"blocks without an end":  r("a {\n"),
		"templates":              "log_level = " + r(`"${`) + "1" + r(`}"`),
		"heredocs":               "log_level = " + r("<<E\n${"),
		"template conditions":    `log_level = "` + r("%{ if true }") + r("%{ endif }") + `"`,
		"calls":                  "log_level = " + r("f(") + "1" + r(")"),
		"not":                    "log_level = " + r("!") + "true",
		"minus":                  "log_level = " + r("-") + "1",
		"sum":                    "log_level = 1" + r("+1"),
		"sum in lines":           "log_level = (1" + r("\n+1") + ")",
		"sum in a for object":    "log_level = { for x in [] : x => 1" + r("\n+1") + "}",
		"sum in a template":      "log_level = \"${1" + r("\n+1") + "}\"",
		"and":                    "log_level = true" + r(" && true"),
		"comparisons":            "log_level = 1" + r(" == 1"),
		"conditions":             "log_level = " + r("true ? 1 : ") + "1",
		"conditions, first":      "log_level = " + r("true ? ") + "1" + r(" : 1"),
		"indexes":                "log_level = b" + r("[b]"),
		"splats":                 "log_level = b" + r("[*]"),
		"splats by dots":         "log_level = b" + r(".*.b"),
		"namespaces":             "log_level = " + r("a::") + "b(1)",
		"brackets of many kinds": "log_level = " + r("[({a=\"${f("),
		"wrong counterparts":     "log_level = " + r("[}"),
		"quotes in comments":     "log_level = /* \" */ " + r("[") + " /* \" */",
	}
}

// Deep nesting is an error, however deep it is, and takes little of the stack.
func TestNestingIsBounded(t *testing.T) {
	defer debug.SetMaxStack(debug.SetMaxStack(16 << 20)) // with a larger stack the process ends
	for name, src := range deep(3_000) {
		t.Run(name, func(t *testing.T) {
			cfg, diags := loadText(src, nil)
			if got := textOf(diags); cfg != nil || strings.Count(got, "Error:") != 1 ||
				!strings.Contains(got, "Nested too deeply") {
				t.Errorf("got %v and:\n%.500s\nwant one error", cfg, got)
			}
			if text, diags := Format("test.hcl", []byte(src)); text != nil || !diags.HasErrors() {
				t.Error("Format accepted the text")
			}
		})
	}
	for name, src := range deep(maxNesting / 8) {
		t.Run(name+", a few", func(t *testing.T) {
			if at, broken := tooDeep("test.hcl", []byte(src)); at != nil || broken != nil {
				t.Errorf("refused at %v", at)
			}
			_, _ = loadText(src, nil)
		})
	}
}

// Long configurations with little nesting are accepted.
func TestLengthIsNotDepth(t *testing.T) {
	const n = 10 * maxNesting
	r := func(s string) string { return strings.Repeat(s, n) }
	tests := map[string]string{
		"a list":                       "a = [" + r(`"10.0.0.1:80", `) + "]",
		"a list in lines":              "a = [\n" + r("\"10.0.0.1:80\", # one of many\n") + "]",
		"a list of lists":              "a = [" + r("[[1], [2]], ") + "]",
		"an object in lines":           "a = {\n" + r("b = [1]\n") + "}",
		"an object with commas":        "a = {" + r("b = [1], ") + "}",
		"arguments":                    r("a = [1]\n"),
		"arguments with comments":      r("a = \"b\" # [c]\n") + r("a = \"b\" // [c]\n"),
		"arguments in a block":         "b {\n" + r("a = \"b\" # [c]\n") + "}",
		"blocks":                       r("service \"web\" { # a comment\n listen = 1\n consul {\n}\n}\n"),
		"blocks in a line":             r("service \"web\" { listen = 1 }\n"),
		"arguments called for":         "b {\n for = 1\n}\n",
		"a comment":                    r("# ((( [[[ {{{ \"\n"),
		"a comment of many lines":      "/*" + r("((( [[[ {{{ \"\n") + "*/",
		"a string":                     "a = \"" + r("((( [[[ {{{ ") + "\"",
		"a heredoc":                    "a = <<E\n" + r("((( [[[ {{{ \" ") + "\n" + r("x == 1 and\n") + "E\n",
		"carriage returns":             r("a = [1]\r\n"),
		"an argument behind an object": "a = {\n" + r("b = 1\n") + "}\n" + r("c = [2]\n"),
	}
	for name, src := range tests {
		t.Run(name, func(t *testing.T) {
			if at, broken := tooDeep("test.hcl", []byte(src)); at != nil || broken != nil {
				t.Errorf("refused at %v", at)
			}
		})
	}
}

// A missing quotation mark swaps the inside and outside of all strings after it. The message names the first string,
// not the consequences.
func TestMissingQuotationMarkInALongFile(t *testing.T) {
	src := "service \"x\" {\n  listen = \"127.0.0.1:1\n}\n" + manyServices(100)
	_, diags := loadText(src, nil)
	got := textOf(diags)
	if strings.Count(got, "Error:") != 1 || !strings.Contains(got, "test.hcl:2:") ||
		!strings.Contains(got, "quotation mark") {
		t.Errorf("got:\n%.1000s", got)
	}
}

func TestNumberOfTokensIsBounded(t *testing.T) {
	for _, src := range []string{
		"log_level = [" + strings.Repeat(",", maxTokens) + "]",
		`log_level = "` + strings.Repeat("${", maxTokens) + `"`,
		strings.Repeat("\n", maxTokens),
	} {
		cfg, diags := loadText(src, nil)
		if got := textOf(diags); cfg != nil || strings.Count(got, "Error:") != 1 ||
			!strings.Contains(got, "Too much configuration") {
			t.Errorf("%.20q: got %v and:\n%.500s\nwant one error", src, cfg, got)
		}
	}
	// The tokens of several files are added up.
	tokens := maxTokens - 10
	if d := unfit("x", []byte("a = [1, 2, 3, 4]"), &tokens); d == nil {
		t.Error("the tokens of files are not added up")
	}
}

// wantTooDeepToAgree checks that tooDeep finds nothing in a text that is surely shallow.
func wantTooDeepToAgree(t *testing.T, src []byte) {
	t.Helper()
	if notText(src) >= 0 || !surelyShallow(src) {
		return
	}
	if at, broken := tooDeep("test.hcl", src); at != nil || broken != nil {
		t.Errorf("%.100q is surely shallow, but tooDeep reports %v, %v", src, at, broken)
	}
}

// For an ordinary configuration the lexer runs only once, in the parser.
func TestOrdinaryConfigurationsAreSurelyShallow(t *testing.T) {
	example, err := os.ReadFile("../example.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]string{
		"example": string(example), "services": manyServices(1000),
		"a list": "a = [" + strings.Repeat("\"10.0.0.1:80\", # [(\n", 10*maxNesting) + "]",
	} {
		if !surelyShallow([]byte(src)) {
			t.Errorf("%s: an ordinary configuration is not surely shallow", name)
		}
	}
}

// wantEnoughTokens checks that src has no more tokens than tokensAtMost says. That bounds the memory of the lexer.
func wantEnoughTokens(t *testing.T, src []byte) {
	t.Helper()
	if notText(src) >= 0 {
		return // unfit refuses it before the lexer runs
	}
	tokens, _ := hclsyntax.LexConfig(src, "test.hcl", hcl.InitialPos)
	if n := tokensAtMost(src); n < len(tokens) {
		t.Errorf("%.100q has %d tokens, want at most %d", src, len(tokens), n)
	}
}

func TestTokensAtMost(t *testing.T) {
	for _, src := range []string{
		"", "a", "a = 1", "1a1a 2b", "a-b-c", "1-1-1", `a = "b c d"`, `"$$$%%%"`, `"\"" [,,,] "\""`,
		`"\\" [,,,,] "\\"`, `"a${[1,2,3]}b"`,
		"x = \"\n\" , , , \"\n", `/* " */ , , , "`, `// " , , , "`, "<<E\n\" , \"\n${[,,,,]} \" ,\nE\n",
		"# ,,,,\n,,,\n", "\"#\" ,,,,,", "€€€€", "éa éb",
		`"%{ if true }a%{ endif }"`, `"a" # "b`, "\r\n\r\n",
		strings.Repeat("\" \r", 20), "\ufeffa = 1", "a = <<-E\n  x\n  E\n", "'a' `b`",
		"...::=>==!=<=>=&&||",
	} {
		wantEnoughTokens(t, []byte(src))
		wantTooDeepToAgree(t, []byte(src))
	}
	// For an ordinary configuration the upper bound is near the truth. Otherwise configurations of moderate size would
	// be refused.
	src := []byte(manyServices(100))
	tokens, _ := hclsyntax.LexConfig(src, "test.hcl", hcl.InitialPos)
	if n := tokensAtMost(src); n > 2*len(tokens) {
		t.Errorf("got %d, want at most twice %d", n, len(tokens))
	}
}

func TestSizesAreBounded(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int64) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil { // a hole takes no space on the disk
			t.Fatal(err)
		}
		return path
	}
	_, diags := Load([]string{file("a", MaxFile+1)}, Options{})
	if got := textOf(diags); !strings.Contains(got, "has more than 16 MiB") {
		t.Errorf("a large file: got %s", got)
	}
	var paths []string
	for i := range 5 {
		paths = append(paths, file(fmt.Sprint(i), MaxFile))
	}
	_, diags = Load(paths, Options{})
	if got := textOf(diags); strings.Count(got, "Error:") != 5 ||
		!strings.Contains(got, "together have more than 64 MiB") {
		t.Errorf("large files: got %s", got)
	}
}

// FuzzBounds checks that each text that reaches the parser takes little of the stack, and has no more tokens than
// tokensAtMost says.
func FuzzBounds(f *testing.F) {
	for _, src := range deep(12) {
		f.Add(src, 20)
	}
	f.Fuzz(func(t *testing.T, part string, n int) {
		if len(part) > 200 || n < 0 || n > 2000 {
			return
		}
		defer debug.SetMaxStack(debug.SetMaxStack(16 << 20))
		src := "log_level = " + strings.Repeat(part, n)
		wantEnoughTokens(t, []byte(src))
		wantTooDeepToAgree(t, []byte(src))
		_, _ = loadText(strings.NewReplacer("_file", "_fil", "ca_path", "ca_pat").Replace(src), nil)
	})
}
