package testproc

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// A Log stores the output of a process. Use it as the process's Stdout or Stderr. The Log may be read while the process
// writes. The zero value is ready for use.
type Log struct {
	// Copy, if not nil, also receives the output.
	Copy io.Writer

	mu   sync.Mutex
	text bytes.Buffer
}

// Write appends to the log.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Copy != nil {
		if _, err := l.Copy.Write(b); err != nil {
			return 0, err
		}
	}
	return l.text.Write(b)
}

// String returns the output so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Lines returns the complete lines so far.
func (l *Log) Lines() []string {
	text := l.String()
	end := strings.LastIndexByte(text, '\n')
	if end < 0 {
		return nil
	}
	return strings.Split(text[:end], "\n")
}

// Tail returns the last n lines.
func (l *Log) Tail(n int) string {
	lines := strings.Split(strings.TrimRight(l.String(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
