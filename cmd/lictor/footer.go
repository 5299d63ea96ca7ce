package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/mattn/go-isatty"
	"golang.org/x/term"
)

// A footer is a writer to a terminal that keeps some lines below everything else that is written. Write must not be
// called by two goroutines at once.
type footer struct {
	terminal *os.File

	mu    sync.Mutex // guards lines
	lines []string

	drawn int // number of lines on the terminal
}

// redraw is what to write to a footer in order to draw its lines again.
const redraw = "\r"

// show sets the lines. They appear with the next Write.
func (f *footer) show(lines []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = slices.Clone(lines)
}

// Write writes text above the lines of the footer. Text that does not end with a line feed removes the lines until the
// next Write.
func (f *footer) Write(text []byte) (int, error) {
	var b bytes.Buffer
	if f.drawn > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA\x1b[J", f.drawn)
		f.drawn = 0
	}
	again := string(text) == redraw
	if !again {
		b.Write(text)
	}
	if again || bytes.HasSuffix(text, []byte("\n")) {
		width, height, err := term.GetSize(int(f.terminal.Fd()))
		if err != nil {
			width, height = 80, 24
		}
		for _, line := range f.fitting(max(height-1, 1)) {
			fmt.Fprintln(&b, cut(line, width))
			f.drawn++
		}
	}
	if _, err := f.terminal.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(text), nil
}

// fitting returns the lines, or as many of them as there is room for and how many are missing.
func (f *footer) fitting(room int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lines) <= room {
		return f.lines
	}
	return append(slices.Clone(f.lines[:room-1]), fmt.Sprintf("and %d more", len(f.lines)-room+1))
}

// Unwrap returns the terminal.
func (f *footer) Unwrap() io.Writer { return f.terminal }

// terminalOf returns the terminal that w writes to, or nil if w does not write to one.
func terminalOf(w io.Writer) *os.File {
	for {
		switch inner := w.(type) {
		case *os.File:
			if !isatty.IsTerminal(inner.Fd()) {
				return nil
			}
			return inner
		case interface{ Unwrap() io.Writer }:
			w = inner.Unwrap()
		default:
			return nil
		}
	}
}

// isDumb reports whether the terminal obeys no escape sequences.
func isDumb() bool { return os.Getenv("TERM") == "dumb" }

// isTerminal reports whether w is a terminal that may show colours. It honours https://no-color.org.
func isTerminal(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && !isDumb() && terminalOf(w) != nil
}
