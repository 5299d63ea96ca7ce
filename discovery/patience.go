package discovery

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A patience bounds the wait of queries. An agent with a write_timeout cuts off a query whose wait is longer, instead
// of answering it. How long the agent lets queries wait is learnt by trying. The limit never grows: a higher
// write_timeout counts after a restart of lictor. Safe for concurrent use.
type patience struct {
	log hclog.Logger

	mu    sync.Mutex    // guards the following
	limit time.Duration // of waits; zero: there is none
	cuts  int           // queries with the present limit that were cut off although the agent is alive
}

const (
	enoughCuts = 2                      // so many shorten the wait: one may be by chance
	leastLimit = 500 * time.Millisecond // the shortest limit
)

// bound returns d, or the limit if that is less.
func (p *patience) bound(d time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit == 0 {
		return d
	}
	return min(d, p.limit)
}

// cut notes that a query with this wait was cut off when its answer was due, and that the agent answered the next one.
// Waits may be a tenth longer than the limit.
func (p *patience) cut(wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit != 0 && wait > p.limit+p.limit/8 { // it was sent before the limit
		return
	}
	if p.cuts++; p.cuts < enoughCuts || p.limit == leastLimit {
		return
	}
	if p.limit == 0 {
		p.log.Warn("the agent cuts off queries that wait, lictor asks it more often",
			"waited", wait.Round(time.Millisecond), "to_change_that",
			"raise http_config.write_timeout in the agent's configuration above a minute, and restart lictor")
	}
	p.limit, p.cuts = max(wait/2, leastLimit), 0
}

// waited notes an answer that came when the wait was over.
func (p *patience) waited() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts = 0
}

// noteCut keeps the wait of a query that was cut off when its answer was due, until the next answer shows that the
// agent is alive. An agent that was killed does not answer so soon.
func (p *poller) noteCut(how ask, took time.Duration, err error) {
	var overdue *consul.OverdueError
	switch {
	case errors.As(err, &overdue):
		p.cut = how.wait
	case err != nil:
		p.cut = 0
	case how.index != 0 && took >= how.wait:
		p.consul.patience.waited()
	case p.cut != 0:
		p.consul.patience.cut(p.cut)
		p.cut = 0
	}
}
