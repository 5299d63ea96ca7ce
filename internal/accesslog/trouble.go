package accesslog

import (
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/allowance"
)

// A trouble is the state of being unable to write the access log. The beginning and the end of a trouble are each
// logged once. If troubles come and go, the number of log lines is limited.
type trouble struct {
	log     hclog.Logger
	error   string // empty while the log can be written
	logged  bool
	allowed allowance.Allowance
}

func (t *trouble) is() bool { return t.error != "" }

// began logs err, unless the same error was logged last.
func (t *trouble) began(err error) {
	if text := err.Error(); text != t.error {
		t.error, t.logged = text, false
	}
	if !t.logged && t.allowed.Take(time.Now(), linesAtOnce, lineEvery) {
		t.logged = true
		t.log.Warn("access log cannot be written, lictor keeps trying", "error", err)
	}
}

// ended logs that the access log can be written again, if the trouble was logged.
func (t *trouble) ended() {
	if t.logged {
		t.log.Info("access log is written again")
	}
	t.error, t.logged = "", false
}

// Limits on log lines of one kind: first linesAtOnce, and then one every lineEvery.
const (
	linesAtOnce = 4
	lineEvery   = time.Minute
)
