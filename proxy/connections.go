package proxy

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A Connection is a TCP connection or a UDP session that is being served now.
type Connection struct {
	Service  string
	Protocol Protocol
	Client   netip.AddrPort // invalid for a client of a Unix socket
	Listener lb.Addr        // address that the client dialled; its listener may be closed by now
	Endpoint lb.Endpoint    // zero while the client has no endpoint
	From     netip.AddrPort // local address of the connection to the endpoint; invalid if it has none
	State    ConnectionState
	Age      time.Duration
	Idle     time.Duration // time since bytes last moved
	Up, Down int64         // bytes to the endpoint and from the endpoint

	TLS *TLSPeer // what the TLS handshake with the client has shown; nil if there was none

	DatagramsUp, DatagramsDown int64 // datagrams of a UDP session
}

// ConnectionState is the stage of a Connection.
type ConnectionState string

// The states of a Connection.
const (
	ConnectionWaiting    ConnectionState = "waiting"     // the client waits for a free slot at an endpoint
	ConnectionGreeting   ConnectionState = "greeting"    // the PROXY header, ClientHello or handshake is not over yet
	ConnectionConnecting ConnectionState = "connecting"  // Lictor dials an endpoint or looks up its host name
	ConnectionOpen       ConnectionState = "open"        // bytes can move in both directions
	ConnectionHalfClosed ConnectionState = "half_closed" // one side has ended, the other side goes on
	ConnectionClosing    ConnectionState = "closing"     // both sides have ended; last bytes are on their way
)

// A ConnectionQuery says which Connections are wanted.
type ConnectionQuery struct {
	Service  string // empty means all services
	Endpoint string // ID or address; empty means all endpoints
	After    string // the next that the previous page returned; empty means the first page
	Limit    int    // the most Connections on a page; at least one
}

// wants reports whether q selects a connection of s with endpoint m. m is nil if there is no endpoint yet.
func (q *ConnectionQuery) wants(s *service, m *lb.Member) bool {
	if q.Service != "" && q.Service != s.name() {
		return false
	}
	return q.Endpoint == "" || m != nil && (m.ID == q.Endpoint || m.Address() == q.Endpoint)
}

// Bounds of what a listing costs. After placesAtOnce places other work gets its turn. A page ends after placesPerPage
// places, even if few of them are wanted.
const (
	placesAtOnce  = 128
	placesPerPage = 64 << 10
)

// A place identifies a connection for as long as it lasts. A connection that is open while all pages are read is on
// exactly one page, whatever other connections begin and end.
type place struct{ shard, number int }

func (p place) String() string { return fmt.Sprintf("%d-%d", p.shard, p.number) }

func parsePlace(text string) (p place, err error) {
	if text == "" {
		return p, nil
	}
	if _, err := fmt.Sscanf(text, "%d-%d", &p.shard, &p.number); err != nil || p.shard < 0 || p.number < 0 ||
		p.number > math.MaxInt32 || p.String() != text {
		return place{}, fmt.Errorf("%q is not a position that a page has returned", text)
	}
	return p, nil
}

// Connections returns one page of the connections that are being served, and the position of the next page. next is
// empty after the last page. An earlier page may have fewer than q.Limit Connections, or none. Clients are served
// meanwhile, because only a few connections are looked at without a pause.
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
