package config

import (
	"os"
	"strings"
	"testing"
)

// TestCodeAndLinksEndOnTheirLine checks that no code and no link of docs/configuration.md goes over the end of a line,
// where packaging/man-of-markdown would not recognise it.
func TestCodeAndLinksEndOnTheirLine(t *testing.T) {
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "```") {
			continue
		}
		rest := quoted.ReplaceAllString(line, "")
		if strings.Contains(rest, "`") || strings.Count(rest, "[") != strings.Count(rest, "](") {
			t.Errorf("%s:%d: code or a link goes over the end of the line: %s", reference, i+1, line)
		}
	}
}
