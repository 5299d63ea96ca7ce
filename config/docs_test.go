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

// TestConfigurationsInDocumentsAreGood loads every configuration that a reader could copy. A fence that begins with hcl
// and a further word is an example of the language, but not a configuration of Lictor.
func TestConfigurationsInDocumentsAreGood(t *testing.T) {
	files := referenceFiles(t)
	texts := map[string][]string{}
	for path, text := range pages(t) {
		for _, m := range hclFence.FindAllStringSubmatch(text, -1) {
			texts[path] = append(texts[path], m[1])
		}
	}
	packaged, err := os.ReadFile("../packaging/lictor.hcl")
	if err != nil {
		t.Fatal(err)
	}
	texts["../packaging/lictor.hcl"] = []string{string(packaged),
		strings.ReplaceAll(string(packaged), "# service", "service")}
	for _, pattern := range []string{"../examples/*.hcl", "../examples/*/lictor.hcl"} {
		examples, err := filepath.Glob(pattern)
		if err != nil || len(examples) == 0 {
			t.Fatalf("%s: got %v, %v", pattern, examples, err)
		}
		for _, path := range examples {
			texts[path] = []string{readPage(t, path)}
		}
	}
	for _, path := range []string{"README.md", "docs/configuration.md", "docs/getting-started.md",
		"docs/migrating.md"} {
		if len(texts[path]) == 0 {
			t.Errorf("%s has no configuration; does this test look in the right way?", path)
		}
	}
	for path, blocks := range texts {
		for _, text := range blocks {
			if !regexp.MustCompile(`(?m)^service `).MatchString(text) {
				text += "service \"web\" { listen = 9000 }\n"
			}
			if _, diags := loadText(files(text), nil); len(diags.Diagnostics) > 0 {
				t.Errorf("%s has an invalid configuration:\n%s\n%s", path, text, textOf(diags))
			}
		}
	}
}

// TestMigratingNamesWhatThereIs checks that every argument that docs/migrating.md offers is in the schema.
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
	for _, name := range slices.Concat(balanceNames(), protocolNames(), []string{LeaveCut.String()}) {
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
		t.Errorf("found %d rows; does this test look in the right way?", rows)
	}
}

// TestTheRecipeForPatroniIsTheSameEverywhere holds docs/migrating.md to the example, which the end-to-end test and the
// measurement use. README.md has a link to it.
func TestTheRecipeForPatroniIsTheSameEverywhere(t *testing.T) {
	recipe := readPage(t, "../examples/patroni.hcl")
	if !strings.Contains(readPage(t, "../docs/migrating.md"), "```hcl\n"+recipe+"```\n") {
		t.Error("docs/migrating.md does not have examples/patroni.hcl, word for word")
	}
	if !strings.Contains(readPage(t, "../README.md"), "(examples/patroni.hcl)") {
		t.Error("README.md has no link to examples/patroni.hcl")
	}
}
