package discovery

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A patience limits the wait of queries. An agent with a write_timeout cuts off a query with a longer wait, instead of
// answering it. A patience learns from such failures how long the agent lets queries wait. The limit never grows while
// one agent is in use, so a higher write_timeout takes effect only after a restart of Lictor. A patience is safe for
// concurrent use.
type patience struct {
	log hclog.Logger

	mu    sync.Mutex    // guards the following fields
	limit time.Duration // limit of waits; zero: none
	cuts  int           // queries with the current limit that a living agent cut off
}

const (
	enoughCuts = 2                      // cuts that shorten the wait: a single one may be chance
	leastLimit = 500 * time.Millisecond // the shortest limit
)

// bound returns d, or the limit if the limit is shorter.
func (p *patience) bound(d time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit == 0 {
		return d
	}
	return min(d, p.limit)
}

// cut records that a query was cut off when its answer was due, and that the agent answered the next query. wait is the
// wait of the cut query, which may be up to a tenth longer than the limit.
func (p *patience) cut(wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit != 0 && wait > p.limit+p.limit/8 { // the query was sent before the limit was set
		return
	}
	if p.cuts++; p.cuts < enoughCuts || p.limit == leastLimit {
		return
	}
	if p.limit == 0 {
		p.log.Warn("the consul agent cuts off waiting queries, lictor sends shorter queries more often",
			"waited", wait.Round(time.Millisecond), "to_change_that",
			"raise http_config.write_timeout in the agent's configuration above a minute, and restart lictor")
	}
	p.limit, p.cuts = max(wait/2, leastLimit), 0
}

// forget removes the limit, because another agent answers now.
func (p *patience) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit, p.cuts = 0, 0
}

// waited records that an answer came when the wait was over.
func (p *patience) waited() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts = 0
}

// noteCut remembers the wait of a query that was cut off when its answer was due. The next answer then shows that the
// agent is alive. An agent that was killed would not answer so soon.
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
