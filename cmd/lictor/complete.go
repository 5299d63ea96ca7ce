package main

import (
	"cmp"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// A typed is a line of a shell when the Tab key is pressed.
type typed struct {
	words []string // the complete words; for a command only those after its name
	last  string   // the word that is completed; "" if it has not begun
}

// A predictor returns words that may come next. The caller ignores words that do not begin with line.last. A nil
// predictor says that an option has no value, or that a command has no arguments.
type predictor func(line typed) []string

// predictors has a predictor for each option, under a key such as "-config".
type predictors map[string]predictor

// oneOf returns a predictor of fixed words.
func oneOf(words ...string) predictor { return func(typed) []string { return words } }

// anything is the predictor of a value of which lictor knows nothing.
func anything(typed) []string { return nil }

// configurations returns a predictor of the paths of configuration files and folders.
func configurations() predictor { return files("*.hcl") }

// files returns a predictor of the paths of folders, and of files whose names match the pattern. If only one folder
// fits, the predictor goes on with what is in it.
func files(pattern string) predictor {
	return func(line typed) []string {
		paths := pathsAt(line.last, pattern)
		if len(paths) == 1 && strings.HasSuffix(paths[0], "/") {
			return pathsAt(paths[0], pattern)
		}
		return paths
	}
}

// pathsAt returns the paths in one folder that begin with prefix. The paths of folders end in "/". If prefix itself is
// a folder, such as "a/" or "..", it comes last.
func pathsAt(prefix, pattern string) (paths []string) {
	folder, begin := filepath.Split(prefix)
	entries, err := os.ReadDir(cmp.Or(folder, "."))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), begin) {
			continue
		}
		path := folder + e.Name()
		fits, _ := filepath.Match(pattern, e.Name())
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			paths = append(paths, path+"/")
		} else if fits {
			paths = append(paths, path)
		}
	}
	switch begin {
	case "":
		paths = append(paths, cmp.Or(folder, "./"))
	case ".", "..":
		paths = append(paths, prefix+"/")
	}
	return paths
}

// completeFlags returns predictors for all flags in the set. values has those of the flags whose values can be
// completed.
func completeFlags(flags *flag.FlagSet, values predictors) predictors {
	all := predictors{"-help": nil}
	flags.VisitAll(func(f *flag.Flag) {
		p := values["-"+f.Name]
		if toggle, ok := f.Value.(interface{ IsBoolFlag() bool }); p == nil && !(ok && toggle.IsBoolFlag()) {
			p = anything // the next word is the value, and no argument of the command
		}
		all["-"+f.Name] = p
	})
	return all
}

// beforeCursor returns the part of a line before the cursor. point is the position in bytes. Without a point the cursor
// is at the end.
func beforeCursor(line, point string) string {
	if n, err := strconv.Atoi(point); err == nil && n >= 0 && n < len(line) {
		return line[:n]
	}
	return line
}

// complete prints the words that may replace the last word of a line, and returns the exit code. The line begins with
// the name of the program.
func (c console) complete(text string) int {
	words := strings.Fields(text)
	if strings.TrimRightFunc(text, unicode.IsSpace) != text {
		words = append(words, "") // the last word is complete
	}
	if len(words) < 2 {
		return exitOK
	}
	// "-config=a" is completed like "-config a". Shells replace only what is after the "=".
	words = append(words[1:len(words)-1], strings.Split(words[len(words)-1], "=")...)
	line := typed{words: words[:len(words)-1], last: words[len(words)-1]}
	var found strings.Builder
	for _, word := range completions(commands(c), line) {
		if strings.HasPrefix(word, line.last) {
			found.WriteString(word + "\n")
		}
	}
	return c.printText("", found.String())
}

// completions returns words that may come next in a line. Not all of them begin with line.last, but options are among
// them only if line.last begins with "-".
func completions(all map[string]command, line typed) (words []string) {
	options := []string{"-autocomplete-install", "-autocomplete-uninstall", "-help", "-version"}
	at := slices.IndexFunc(line.words, func(word string) bool { return all[word] != nil })
	if at < 0 {
		words = slices.Sorted(maps.Keys(all))
	} else {
		c := all[line.words[at]]
		line.words = line.words[at+1:]
		values, arguments := c.AutocompleteFlags(), c.AutocompleteArgs()
		if n := len(line.words); n > 0 && values[line.words[n-1]] != nil {
			return values[line.words[n-1]](line)
		}
		if arguments != nil {
			words = arguments(line)
		}
		options = slices.Sorted(maps.Keys(values))
	}
	if strings.HasPrefix(line.last, "-") {
		words = append(words, options...)
	}
	return words
}
