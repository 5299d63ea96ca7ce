// Columns checks that no line of Go code is longer than 120 columns. A tab takes four columns, and any other character
// one. Lines inside of a raw string of several lines may be longer: to break them would change the string.
//
// Usage: columns FILE...
//
// It prints every line that is longer, and then exits with 1.
package main

import (
	"bytes"
	"fmt"
	"go/scanner"
	"go/token"
	"os"
	"unicode/utf8"
)

// limit is how many columns a line may have, and tab how many of them a tab takes.
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

// columns returns how many columns line takes.
func columns(line []byte) int {
	return utf8.RuneCount(line) + (tab-1)*bytes.Count(line, []byte("\t"))
}

// rawLines returns the numbers of the lines of src that are part of a raw string of several lines.
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
