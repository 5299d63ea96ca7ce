package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var hclFence = regexp.MustCompile("(?ms)^```hcl\n(.*?)^```$")

// TestConfigurationsInDocumentsAreGood loads every configuration that a reader could copy. What is in the language, but no
// configuration of Lictor, has something behind the hcl of its fence.
func TestConfigurationsInDocumentsAreGood(t *testing.T) {
	files := referenceFiles(t)
	texts := map[string][]string{}
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../e2e/*/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: got %v, %v", pattern, paths, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range hclFence.FindAllStringSubmatch(string(text), -1) {
				texts[path] = append(texts[path], m[1])
			}
		}
	}
	packaged, err := os.ReadFile("../packaging/lictor.hcl")
	if err != nil {
		t.Fatal(err)
	}
	texts["../packaging/lictor.hcl"] = []string{string(packaged), strings.ReplaceAll(string(packaged), "# service", "service")}
	for _, path := range []string{"../README.md", "../docs/configuration.md", "../docs/getting-started.md", "../docs/migrating.md"} {
		if len(texts[path]) == 0 {
			t.Errorf("%s has no configuration any more; does this test look for them in the right way?", path)
		}
	}
	for path, blocks := range texts {
		for _, text := range blocks {
			if !regexp.MustCompile(`(?m)^service `).MatchString(text) {
				text += "service \"web\" { listen = 9000 }\n"
			}
			if _, diags := loadText(files(text), nil); len(diags.Diagnostics) > 0 {
				t.Errorf("%s has a configuration that is no good:\n%s\n%s", path, text, textOf(diags))
			}
		}
	}
}
