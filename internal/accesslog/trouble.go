package accesslog

import (
	"time"

	"github.com/hashicorp/go-hclog"
)

// A trouble is that an access log cannot be written. It is logged once, and so is its end. If troubles come and go, the
// log lines are bounded.
type trouble struct {
	log     hclog.Logger
	error   string // empty: there is none
	logged  bool
	allowed allowance
}

func (t *trouble) is() bool { return t.error != "" }

// began logs err, unless it was logged last.
func (t *trouble) began(err error) {
	if text := err.Error(); text != t.error {
		t.error, t.logged = text, false
	}
	if !t.logged && t.allowed.take(time.Now()) {
		t.logged = true
		t.log.Warn("access log cannot be written, trying on", "error", err)
	}
}

// ended logs that lines can be written again, if it was logged that they cannot.
func (t *trouble) ended() {
	if t.logged {
		t.log.Info("access log is written again")
	}
	t.error, t.logged = "", false
}

// Bounds of log lines of one kind.
const (
	linesAtOnce = 4
	lineEvery   = time.Minute
)

// An allowance bounds log lines: linesAtOnce, and then one every lineEvery. The zero value is full.
type allowance struct{ spent time.Time } // when all of it will be there again

// take reports whether a line may be logged now.
func (a *allowance) take(now time.Time) bool {
	from := a.spent
	if from.Before(now) {
		from = now
	}
	if from.Sub(now) > (linesAtOnce-1)*lineEvery {
		return false
	}
	a.spent = from.Add(lineEvery)
	return true
}
