package config

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestAnswersListsItsQuestions checks that the list at the top of docs/answers.md has all questions, in their order.
func TestAnswersListsItsQuestions(t *testing.T) {
	text := readPage(t, "../docs/answers.md")
	var listed, answered []string
	for _, m := range regexp.MustCompile(`(?m)^- \[(.*)\]\(#`).FindAllStringSubmatch(text, -1) {
		listed = append(listed, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(text, -1) {
		answered = append(answered, m[1])
	}
	if len(answered) < 10 || !slices.Equal(listed, answered) {
		t.Errorf("listed:   %q\nanswered: %q", listed, answered)
	}
}

// TestAnswersUsesTheWordsOfOtherPages checks that the tables about resets in docs/answers.md have all reasons and ends
// of TCP that docs/metrics.md and docs/operations.md explain, and that its figures are those of docs/operations.md.
func TestAnswersUsesTheWordsOfOtherPages(t *testing.T) {
	answers, operations := readPage(t, "../docs/answers.md"), readPage(t, "../docs/operations.md")
	_, ends, _ := strings.Cut(operations, "| end | of | meaning |\n")
	ends, _, _ = strings.Cut(ends, "\n\n")
	_, reasons, _ := strings.Cut(readPage(t, "../docs/metrics.md"), "| reason | meaning |\n")
	reasons, _, _ = strings.Cut(reasons, "\n\n")
	var words []string
	for row := range strings.Lines(ends + "\n" + reasons) {
		first, rest, _ := strings.Cut(strings.TrimPrefix(row, "| "), " | ")
		if !strings.HasPrefix(rest, "UDP |") && !strings.Contains(rest, "for a UDP client") {
			words = append(words, code(first)...)
		}
	}
	if len(words) < 14 {
		t.Fatalf("only %q", words)
	}
	for _, word := range words {
		if word != "client closed" && !strings.Contains(answers, "`"+word+"`") {
			t.Errorf("docs/answers.md does not say what to do about %q", word)
		}
	}
	for _, pair := range [][2]string{ // what docs/answers.md says, and where it is from
		{"524,288 descriptors", "| 524,288 |"},
		{"about 523,600", "| 523,648 |"},
		{"28,232 by default", "28,232 ports"},
		{"470 new ones a second", "about 470 new"},
		{"7,000 new connections a second", "a new connection with one request | | | 7,000 |"},
	} {
		if !strings.Contains(answers, pair[0]) || !strings.Contains(operations, pair[1]) {
			t.Errorf("docs/answers.md says %q: %v; docs/operations.md says %q: %v", pair[0],
				strings.Contains(answers, pair[0]), pair[1], strings.Contains(operations, pair[1]))
		}
	}
}
