// Columns checks that no line of Go code is longer than 120 columns. A tab counts as four columns, any other character
// as one. Lines inside a raw string of several lines may be longer, because a line break would change the string.
//
// Usage: columns FILE...
//
// Columns prints every line that is too long, and then exits with 1.
package main

import (
	"bytes"
	"fmt"
	"go/scanner"
	"go/token"
	"os"
	"unicode/utf8"
)

// limit is the largest number of columns of a line, and tab the number of columns of a tab.
const limit, tab = 120, 4

func main() {
	code := 0
	for _, name := range os.Args[1:] {
		src, err := os.ReadFile(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		raw := rawLines(src)
		for i, line := range bytes.Split(src, []byte("\n")) {
			if n := columns(line); n > limit && !raw[i+1] {
				fmt.Printf("%s:%d: %d columns, more than %d\n", name, i+1, n, limit)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// columns returns the number of columns of a line.
func columns(line []byte) int {
	return utf8.RuneCount(line) + (tab-1)*bytes.Count(line, []byte("\t"))
}

// rawLines returns the numbers of those lines of src that are part of a raw string of several lines.
func rawLines(src []byte) map[int]bool {
	files := token.NewFileSet()
	file := files.AddFile("", -1, len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, 0)
	lines := map[int]bool{}
	for {
		at, kind, text := s.Scan()
		if kind == token.EOF {
			return lines
		}
		if n := bytes.Count([]byte(text), []byte("\n")); kind == token.STRING && n > 0 {
			first := file.Line(at)
			for i := first; i <= first+n; i++ {
				lines[i] = true
			}
		}
	}
}
