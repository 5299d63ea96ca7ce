package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	markdownLink = regexp.MustCompile(`\]\(([^()\s]*)\)`)
	notInAnchor  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestLinksInDocumentsLeadSomewhere checks that each relative link in a document names a file that exists and, after a
// #, a heading of that file.
func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	for path, text := range documents(t) {
		for _, m := range markdownLink.FindAllStringSubmatch(text, -1) {
			file, anchor, hasAnchor := strings.Cut(m[1], "#")
			if strings.Contains(m[1], "://") {
				continue
			}
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			linked, err := os.ReadFile(target)
			if _, statErr := os.Stat(target); statErr != nil {
				t.Errorf("%s links to %s, which does not exist", path, m[1])
			} else if hasAnchor && (err != nil || !anchors(string(linked))[anchor]) {
				t.Errorf("%s links to %s, but that file has no such heading", path, m[1])
			}
		}
	}
}

// TestCodeAndLinksEndOnTheirLine checks that no code and no link of the reference goes over the end of a line, where
// packaging/man-of-markdown would not recognise it.
func TestCodeAndLinksEndOnTheirLine(t *testing.T) {
	for i, line := range strings.Split(documents(t)[reference], "\n") {
		if strings.HasPrefix(line, "```") {
			continue
		}
		rest := quoted.ReplaceAllString(line, "")
		if strings.Contains(rest, "`") || strings.Count(rest, "[") != strings.Count(rest, "](") {
			t.Errorf("%s:%d: code or a link goes over the end of the line: %s", reference, i+1, line)
		}
	}
}

// documents returns the texts of all documents by their paths.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
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
			all[path] = string(text)
		}
	}
	return all
}

// anchors returns the anchors that GitHub gives to the headings of a document.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	code := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		hashes, heading, ok := strings.Cut(strings.TrimSpace(line), " ")
		if code || !ok || strings.Trim(hashes, "#") != "" {
			continue
		}
		anchor := strings.ToLower(notInAnchor.ReplaceAllString(heading, ""))
		all[strings.ReplaceAll(anchor, " ", "-")] = true
	}
	return all
}
