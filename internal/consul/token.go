package consul

import (
	"fmt"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// A token is the ACL token, which may be in a file. Safe for concurrent use.
type token struct {
	file string // empty: the token never changes
	log  hclog.Logger

	mu      sync.Mutex // guards the following
	last    string     // newest token that could be read
	failing bool       // the file could not be read the last time
}

// newToken returns the token that o names. It reads the file for the first time.
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

// get returns the token for a request that is about to be sent. It reads the file each time, which is every few
// seconds at most. Its modification time would not do: it may stay the same when the contents change, and the old
// token may be dead.
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

// read returns the token in the file. An empty file is an error: it may be about to be written.
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
