package proxy

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A Connection is a client that is being served at one moment: a TCP connection, or a UDP session.
type Connection struct {
	Service  string
	Protocol Protocol
	Client   netip.AddrPort
	Listener netip.AddrPort // that the client came to; it may be closed by now
	Endpoint lb.Endpoint    // zero: there is none yet
	From     netip.AddrPort // the address of this host that the endpoint sees; invalid: there is none yet
	State    ConnectionState
	Age      time.Duration
	Idle     time.Duration // since something moved
	Up, Down int64         // bytes

	DatagramsUp, DatagramsDown int64 // UDP
}

// ConnectionState is how far a Connection has come.
type ConnectionState string

// The states.
const (
	ConnectionWaiting    ConnectionState = "waiting"     // for room at an endpoint
	ConnectionConnecting ConnectionState = "connecting"  // or its endpoint's name is looked up
	ConnectionOpen       ConnectionState = "open"        // bytes move
	ConnectionHalfClosed ConnectionState = "half_closed" // one side has ended, the other goes on
	ConnectionClosing    ConnectionState = "closing"     // it is over, but its last bytes are still on their way
)

// A ConnectionQuery says which Connections are wanted.
type ConnectionQuery struct {
	Service  string // empty: of all
	Endpoint string // by its ID or its address; empty: of all
	After    string // where the page before said that the next one begins; empty: at the beginning
	Limit    int    // at most so many, at least one
}

// wants tells whether a connection of s with m, nil if there is none yet, is of the query.
func (q *ConnectionQuery) wants(s *service, m *lb.Member) bool {
	if q.Service != "" && q.Service != s.name() {
		return false
	}
	return q.Endpoint == "" || m != nil && (m.ID == q.Endpoint || m.Address() == q.Endpoint)
}

// Bounds of what listing costs: how many places are looked at without letting others have their turn, and for one
// page, however few of them are wanted.
const (
	placesAtOnce  = 128
	placesPerPage = 64 << 10
)

// A place is where a connection is as long as it lasts: of places that are in use all the time while pages are read,
// each is seen exactly once, whatever comes and goes beside it.
type place struct{ shard, number int }

func (p place) String() string { return fmt.Sprintf("%d-%d", p.shard, p.number) }

func parsePlace(text string) (p place, err error) {
	if text == "" {
		return p, nil
	}
	if _, err := fmt.Sscanf(text, "%d-%d", &p.shard, &p.number); err != nil || p.shard < 0 || p.number < 0 ||
		p.number > math.MaxInt32 || p.String() != text {
		return place{}, fmt.Errorf("%q is not where a page has ended", text)
	}
	return p, nil
}

// Connections returns one page of what is being served, and where the next page begins: empty after the last. A page
// may have fewer than Limit, and even none, before that. Clients are served meanwhile: a few of them are looked at
// at a time.
func (p *Proxier) Connections(ctx context.Context, q ConnectionQuery) (page []Connection, next string, err error) {
	at, err := parsePlace(q.After)
	if err != nil {
		return nil, "", err
	}
	for looked := 0; at.shard < p.engine.loopCount(); looked += placesAtOnce {
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		if len(page) >= q.Limit || looked >= placesPerPage {
			return page, at.String(), nil
		}
		number, more := p.engine.list(at, &q, &page)
		if at.number = number; !more {
			at = place{shard: at.shard + 1}
		}
	}
	return page, "", nil
}
