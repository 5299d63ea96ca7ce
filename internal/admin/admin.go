// Package admin shows what Lictor does and lets operators do what is theirs: a JSON API, metrics for Prometheus, and
// a web page.
//
//	server := admin.New(admin.Options{State: state, Events: events, Logger: logger})
//	listener, err := admin.ListenDefault(os.Getenv)
//	...
//	err = server.Serve(listener, admin.Access{}) // until Shutdown
//
// It reads from snapshots and never holds up what it shows. The API is described in docs/api.md. A [Client] speaks it.
//
// Who may ask: over a Unix socket, whoever may open it; over TCP, any program of the host unless a token is asked
// for. Browsers are kept from asking on behalf of other sites; see guard.
package admin

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/endpoints"
)

// Options are what a Server needs.
type Options struct {
	State  State             // required
	Events *endpoints.Events // required
	Logger hclog.Logger

	// MaxConnections is how many connections may be open at once, over all listeners. Zero means 64. Half of them
	// may be streams.
	MaxConnections int

	Version, Revision string

	CommandLine []string // arguments of the configuration that the command line has decided, whatever the files say

	// Config is the configuration in force, without secrets, as something that encoding/json takes.
	Config func() any

	// Pending returns the changes of the configuration that the last reload has left for a restart. Nil: there never
	// are any.
	Pending func() []Pending

	// Reload reads the configuration again and applies it. It says in a few words what was done. Nil: there is no
	// reload.
	Reload func(ctx context.Context) (summary string, err error)

	// Upgrade has another process take this one's place, and waits until it does. An error says why it does not.
	// Nil: that cannot be.
	Upgrade func(ctx context.Context) (Upgrade, error)

	// Level and SetLevel are the log level. SetLevel's error says that there is no such level.
	Level    func() string
	SetLevel func(level string) error

	// AccessLog counts the lines of the access log; false: there is none now. Nil: there never is.
	AccessLog func() (written, dropped int64, is bool)

	// Healthy returns nil if all that clients depend on moves, or else what does not, in a line each. It does not wait
	// for long, however often it is called. Nil: nobody knows.
	Healthy func() error

	// LogDropped counts the lines of the log that were dropped because nobody read it in time. Nil: none ever is.
	LogDropped func() int64

	times times // zero: the usual ones
}

// Limits of what one client, or all of them, can take.
const (
	maxConnections = 64 // unless Options say otherwise
	maxBody        = 64 << 10
	maxHeader      = 16 << 10
	maxWait        = 55 * time.Second // of a request that waits for events
	answerTime     = 30 * time.Second // for any other request, and for each piece of a stream
)

// times are how long clients may take. Tests that are about something else have longer ones.
type times struct {
	header  time.Duration // for the header of a request
	request time.Duration // for all of a request
	idle    time.Duration // between requests
	stalled time.Duration // for an answer, while others need the connection
	turn    time.Duration // for the turn of a costly request to come
}

func usualTimes() times {
	return times{
		header: 5 * time.Second, request: 10 * time.Second, idle: time.Minute,
		stalled: 5 * time.Second, turn: 2 * time.Second,
	}
}

// A Server serves the API on any number of listeners.
type Server struct {
	o       Options
	log     hclog.Logger
	started time.Time
	history *history
	hub     *hub

	slots   *slots
	streams *seats // of requests that wait for what happens
	changes *seats // of reloads and upgrades

	work    *answers // those that keep a processor busy: one at a time
	walks   *answers // those that visit all event loops
	queries *answers // those that ask Consul
	scrapes *scrapes

	stopping context.Context // ends when streams are to end
	stop     context.CancelFunc
	running  sync.WaitGroup
	begin    sync.Once
	released atomic.Bool // see Release

	mu                       sync.Mutex // guards the following
	fronts                   map[net.Listener]*front
	reload                   *Reload // the last
	reloadsOK, reloadsFailed int64
}

// New returns a Server that serves nothing yet.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = maxConnections
	}
	if o.times == (times{}) {
		o.times = usualTimes()
	}
	s := &Server{
		o: o, log: o.Logger.Named("admin"), started: time.Now(), history: newHistory(), hub: newHub(),
		streams: newSeats("streams", max(1, o.MaxConnections/2)),
		changes: newSeats("reloads and upgrades", max(1, o.MaxConnections/8)),
		work:    newAnswers(1, o.times.turn),
		walks:   newAnswers(1, o.times.turn),
		queries: newAnswers(4, o.times.turn),
		fronts:  map[net.Listener]*front{},
	}
	s.scrapes = newScrapes(s)
	s.slots = newSlots(o.MaxConnections, o.times.stalled, s.log)
	s.stopping, s.stop = context.WithCancel(context.Background())
	return s
}
