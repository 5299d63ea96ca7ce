package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// pages returns the text of every page of documentation, by its path from the root of the repository.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../e2e/*/*.md", "../examples/*.md",
		"../examples/*/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: got %v, %v", pattern, paths, err)
		}
		for _, path := range paths {
			all[strings.TrimPrefix(filepath.ToSlash(path), "../")] = readPage(t, path)
		}
	}
	return all
}

func readPage(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchors returns the anchors of the headings of a page, made from a heading as GitHub does: lower case, spaces turned
// into hyphens, and no other punctuation.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		all[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])] = true
	}
	return all
}

// TestLinksBetweenPagesResolve checks that the file of each relative link exists, and the heading too if the link names
// one.
func TestLinksBetweenPagesResolve(t *testing.T) {
	all, links := pages(t), 0
	for path, text := range all {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			target, anchor, _ := strings.Cut(m[1], "#")
			file := filepath.ToSlash(filepath.Join(filepath.Dir(path), target))
			if target == "" {
				file = path
			}
			if _, err := os.Stat(filepath.Join("..", file)); err != nil {
				t.Errorf("%s links to %s, which does not exist", path, m[1])
				continue
			}
			if anchor != "" && !anchors(all[file])[anchor] {
				t.Errorf("%s links to %s, but %s has no heading with the anchor %q", path, m[1], file, anchor)
			}
		}
	}
	if links < 50 {
		t.Errorf("%d links are found; does this test look for them in the right way?", links)
	}
}

// TestReadmeIsShort holds README.md to 1,200 words, counted as wc -w does. What does not fit belongs to a page in docs.
func TestReadmeIsShort(t *testing.T) {
	if n := len(strings.Fields(readPage(t, "../README.md"))); n > 1200 {
		t.Errorf("README.md has %d words, want at most 1200: move something to a page in docs, and link to it", n)
	}
}

// TestReadmeFailuresAreThoseOfThePage holds the table of failures in README.md to docs/failures.md, which has all of
// them: the rows that stand in both must be the same.
func TestReadmeFailuresAreThoseOfThePage(t *testing.T) {
	_, section, _ := strings.Cut(readPage(t, "../README.md"), "\n## How it behaves when things fail\n")
	section, _, _ = strings.Cut(section, "\n## ")
	all, rows := readPage(t, "../docs/failures.md"), 0
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| what happens ") {
			continue
		}
		rows++
		if !strings.Contains(all, line) {
			t.Errorf("docs/failures.md does not have this row of README.md, word for word:\n%s", line)
		}
	}
	if rows != 6 {
		t.Errorf("README.md has %d rows of failures, want 6", rows)
	}
}

// TestMakeTargetsInPagesExist checks that the Makefile has each target that a page names.
func TestMakeTargetsInPagesExist(t *testing.T) {
	makefile, named := readPage(t, "../Makefile"), 0
	target := regexp.MustCompile("(?m)(?:^|`)make ([a-z][a-z-]+)")
	for path, text := range pages(t) {
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			named++
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s names `make %s`, which the Makefile does not have", path, m[1])
			}
		}
	}
	if named < 20 {
		t.Errorf("%d targets are found; does this test look for them in the right way?", named)
	}
}
