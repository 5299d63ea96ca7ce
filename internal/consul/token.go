package consul

import (
	"fmt"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// A token is the ACL token, which may be in a file. The token is safe for concurrent use.
type token struct {
	file string // empty if the token never changes
	log  hclog.Logger

	mu      sync.Mutex // guards the fields below
	last    string     // the newest token that could be read
	failing bool       // the last attempt to read the file failed
}

// newToken returns the token that o names. If o names a file, newToken reads it.
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

// get returns the token for the next request. get reads the file each time, which happens every few seconds at most.
// Checking the modification time is not enough, because it may stay the same while the content changes, and the old
// token may be invalid.
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
			t.log.Info("the token file can be read again", "file", t.file)
		}
		t.last = now
	case !t.failing:
		t.log.Warn("the token file cannot be read, the last token stays in use", "error", err)
	}
	t.failing = err != nil
	return t.last
}

// read returns the token in the file. An empty file is an error, because another process may be about to write it.
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
