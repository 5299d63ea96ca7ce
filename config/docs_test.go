package config

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var hclFence = regexp.MustCompile("(?ms)^```hcl\n(.*?)^```$")

// TestConfigurationsInDocumentsAreGood loads every configuration that a reader could copy. What is in the language,
// but no configuration of Lictor, has something behind the hcl of its fence.
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
	texts["../packaging/lictor.hcl"] = []string{string(packaged),
		strings.ReplaceAll(string(packaged), "# service", "service")}
	examples, err := filepath.Glob("../examples/*.hcl")
	if err != nil || len(examples) == 0 {
		t.Fatalf("examples: got %v, %v", examples, err)
	}
	for _, path := range examples {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = []string{string(text)}
	}
	for _, path := range []string{"../README.md", "../docs/configuration.md", "../docs/getting-started.md",
		"../docs/migrating.md"} {
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

// TestMigratingNamesWhatThereIs holds what docs/migrating.md offers for what others have to the language.
func TestMigratingNamesWhatThereIs(t *testing.T) {
	text, err := os.ReadFile("../docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, schema := range sections() {
		for _, name := range schemaNames(schema) {
			known[strings.TrimSuffix(name, " {}")] = true
		}
	}
	for _, name := range slices.Concat(balanceNames(), protocolNames()) {
		known[name] = true
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| `") || len(cells) != 2 {
			continue
		}
		rows++
		for _, name := range code(cells[1]) {
			if !known[name] {
				t.Errorf("docs/migrating.md offers %s, which Lictor does not have: %s", name, line)
			}
		}
	}
	if rows < 20 {
		t.Errorf("%d rows are found; does this test look for them in the right way?", rows)
	}
}

// TestTheRecipeForPatroniIsTheSameEverywhere holds the documents to the example, which the end-to-end test and the
// measurement use.
func TestTheRecipeForPatroniIsTheSameEverywhere(t *testing.T) {
	recipe, err := os.ReadFile("../examples/patroni.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"../README.md", "../docs/migrating.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "```hcl\n"+string(recipe)+"```\n") {
			t.Errorf("%s does not have examples/patroni.hcl, word for word", path)
		}
	}
}
