package discovery

import (
	"context"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// object returns why an answer to a query that was asked with this index is not to be taken for the truth, although Consul calls it a
// success; nil: it may be.
func (w *watch) object(ctx context.Context, asked uint64, a *answer) error {
	empty := len(a.entries) == 0
	switch {
	case empty && a.filtered && asked == 0:
		return w.diagnose(ctx)
	case w.query.Peer != "" && (empty || w.confirm || len(w.holder.until) > 0):
		// What a peering brought goes bit by bit when it ends, and before it is said to have ended: so what is held goes only if it has not.
		return w.consul.client.Peering(ctx, w.query.Peer)
	}
	return nil
}

// diagnose returns the error for an answer that is empty because something was left out. Which right is missing is asked once for each
// time that one is.
func (w *watch) diagnose(ctx context.Context) error {
	if w.denied == nil || w.fails == 0 {
		w.denied = &consul.MissingRightError{Missing: w.consul.client.MissingRight(ctx, w.query.Service, w.query.Datacenter)}
	}
	return w.denied
}
