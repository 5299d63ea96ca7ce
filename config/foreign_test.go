package config

import (
	"slices"
	"strings"
	"testing"
)

// TestForeignWordsAreThoseOfMigrating compares the words that validate knows with the tables of docs/migrating.md.
// Every word of a table must be known, with a counterpart that the row names. Every known word must be in a table.
func TestForeignWordsAreThoseOfMigrating(t *testing.T) {
	t.Parallel()
	documented := map[string]bool{}
	for line := range strings.Lines(readPage(t, "../docs/migrating.md")) {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| `") || len(cells) != 2 {
			continue
		}
		offered := code(cells[1])
		for _, text := range code(cells[0]) {
			found := strings.Contains(text, "{") || ownWord(text) // an expression, or a word that Lictor has too
			for _, name := range offered {
				found = found || plain(name) == plain(text)
			}
			for _, f := range foreignWords() {
				if means(text, f.word) && !slices.ContainsFunc(strings.Fields(f.here),
					func(here string) bool { return !slices.Contains(offered, here) }) {
					found, documented[f.word] = true, true
				}
			}
			if !found {
				t.Errorf("validate does not say what %q means, or something else than the row: %s", text, line)
			}
		}
	}
	for _, f := range foreignWords() {
		if !documented[f.word] {
			t.Errorf("docs/migrating.md does not have %q for %q", f.here, f.word)
		}
		if f.word != plain(f.word) || f.here == "" && f.note == "" {
			t.Errorf("%+v cannot be found, or says nothing", f)
		}
		for _, here := range strings.Fields(f.here) {
			if here != "cut" && !ownWord(here) {
				t.Errorf("%q stands for %q, which Lictor does not have", f.word, here)
			}
		}
	}
}

// means reports whether the text of a table has the word of another proxy, as a whole or as one of its parts.
func means(text, word string) bool {
	parts := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" .()", r) })
	return slices.ContainsFunc(append(parts, text), func(part string) bool {
		return strings.TrimSuffix(plain(part), "s") == strings.TrimSuffix(word, "s")
	})
}

// ownWord reports whether Lictor has an argument, a block or a value of that name. Of text such as "listen ... udp",
// the first word counts.
func ownWord(text string) bool {
	name, _, _ := strings.Cut(text, " ...")
	for _, schema := range sections() {
		if slices.Contains(names(schema), name) {
			return true
		}
	}
	return slices.Contains(slices.Concat(balanceNames(), protocolNames()), name)
}

// No word of another proxy is one of Lictor's own in a block where both make sense.
func TestForeignWordsAreNotLictorsOwn(t *testing.T) {
	t.Parallel()
	for _, name := range slices.Concat(names(serviceSchema()), balanceNames(), protocolNames()) {
		if f := counterpart(name); f != nil {
			t.Errorf("%q is Lictor's own word, but stands for %q", name, f.here)
		}
	}
}
