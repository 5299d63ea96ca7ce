package consul

import (
	"fmt"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// A token is the ACL token of now. Safe for concurrent use.
type token struct {
	file string // empty: the token never changes
	log  hclog.Logger

	mu      sync.Mutex // guards the following
	last    string     // newest token that could be read
	failing bool       // the file could not be read last time
}

// newToken returns the token that o names, read for the first time.
func newToken(o Options) (*token, error) {
	t := &token{file: o.TokenFile, log: o.Logger, last: o.Token}
	if t.file == "" {
		return t, nil
	}
	var err error
	if t.last, err = t.read(); err != nil {
		return nil, err
	}
	return t, nil
}

// get returns the token to use for a query that is about to be sent. Files are read each time: a query is sent every few seconds
// at most, and a modification time that stands still over a change of contents would leave us with a dead token.
func (t *token) get() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == "" {
		return t.last
	}
	now, err := t.read()
	switch {
	case err == nil:
		if t.failing {
			t.log.Info("token file can be read again", "file", t.file)
		}
		t.last = now
	case !t.failing:
		t.log.Warn("token file cannot be read, the last token stays in use", "error", err)
	}
	t.failing = err != nil
	return t.last
}

// read returns what is in the file. Empty is an error: somebody may be about to write it.
func (t *token) read() (string, error) {
	b, err := regular.ReadFile(t.file, maxTokenFile)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	text := strings.TrimSpace(string(b))
	switch {
	case text == "":
		return "", fmt.Errorf("token file %s is empty", t.file)
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("token file %s holds more than one line of visible characters", t.file)
	}
	return text, nil
}
