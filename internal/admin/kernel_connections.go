package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/proxy"
)

// PathKernel is the Connection.Path of a connection on the kernel path.
const PathKernel = "kernel"

// kernelPages is how the position of a page begins that has connections on the kernel path. They follow the connections
// that Lictor forwards.
const kernelPages = PathKernel + "-"

// kernelListKept is how long a list of the connections on the kernel path is used for further pages.
const kernelListKept = 10 * time.Second

// A kernelLister divides the list of connections on the kernel path into pages. It keeps the list while there are
// further pages, because reading it costs the same for each of them.
type kernelLister struct {
	read func(context.Context) ([]Connection, error) // nil: there are none

	mu     sync.Mutex
	kept   []Connection
	forget *time.Timer // nil: nothing is kept
}

// A kernelPlace is the position of a page: that after the first connections with an ID.
type kernelPlace struct {
	id    uint64
	after int
}

func (p kernelPlace) String() string { return fmt.Sprintf("%s%d-%d", kernelPages, p.id, p.after) }

// parseKernelPlace returns false if the text is the position of a page with forwarded connections.
func parseKernelPlace(text string) (p kernelPlace, is bool, err error) {
	if !strings.HasPrefix(text, kernelPages) {
		return p, false, nil
	}
	_, err = fmt.Sscanf(text, kernelPages+"%d-%d", &p.id, &p.after)
	if err != nil || p.after < 0 || p.String() != text {
		return p, true, fmt.Errorf("%q is not a position that a page has returned", text)
	}
	return p, true, nil
}

// page returns the connections from a position that q selects, but ignores q.After, and the position of the next page.
// next is empty after the last page.
func (l *kernelLister) page(
	ctx context.Context, from kernelPlace, q proxy.ConnectionQuery,
) (page []Connection, next string, err error) {
	if l.read == nil {
		return nil, "", nil
	}
	all, err := l.list(ctx, from == kernelPlace{})
	if err != nil {
		return nil, "", err
	}
	var at kernelPlace
	for i := range all {
		c := &all[i]
		if c.ID != at.id {
			at = kernelPlace{id: c.ID}
		}
		at.after++
		if at.id < from.id || at.id == from.id && at.after <= from.after || !wanted(c, &q) {
			continue
		}
		if len(page) == q.Limit {
			l.keep(all)
			return page, from.String(), nil
		}
		page = append(page, *c)
		from = at
	}
	l.keep(nil)
	return page, "", nil
}

// list returns all connections on the kernel path. Unless it is to be fresh, the list may be the one that is kept.
func (l *kernelLister) list(ctx context.Context, fresh bool) ([]Connection, error) {
	l.mu.Lock()
	kept := l.kept
	l.mu.Unlock()
	if kept != nil && !fresh {
		return kept, nil
	}
	return l.read(ctx)
}

// keep keeps a list for a while. A nil list means that none is needed any more.
func (l *kernelLister) keep(all []Connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.forget != nil {
		l.forget.Stop()
		l.forget = nil
	}
	if l.kept = all; all != nil {
		l.forget = time.AfterFunc(kernelListKept, func() { l.keep(nil) })
	}
}

// wanted reports whether q selects c.
func wanted(c *Connection, q *proxy.ConnectionQuery) bool {
	return (q.Service == "" || c.Service == q.Service) &&
		(q.Endpoint == "" || slices.Contains([]string{c.Endpoint, c.Address}, q.Endpoint))
}
