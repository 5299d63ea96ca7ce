// Package admin serves Lictor's admin interface: a JSON API, metrics for Prometheus and a web page. Operators read the
// state of Lictor there and drain endpoints, reload or upgrade.
//
//	server := admin.New(admin.Options{State: state, Events: events, Logger: logger})
//	listener, err := admin.ListenDefault(os.Getenv)
//	...
//	err = server.Serve(listener, admin.Access{}) // until Shutdown
//
// The package reads snapshots and never blocks the parts that it shows. docs/api.md describes the API, and [Client] is
// a client of it.
//
// Every user who may open the Unix socket may use the API. Over TCP, every program of the host may use it, unless a
// token is configured. The guard refuses requests that a browser sends for another site.
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

// Options configure a Server.
type Options struct {
	State  State             // required
	Events *endpoints.Events // required
	Logger hclog.Logger

	// MaxConnections limits the connections that are open at once, over all listeners. Zero means 64. Streams may take
	// at most half of the connections.
	MaxConnections int

	Version, Revision string

	CommandLine []string // arguments of the configuration that the command line overrides

	// Config returns the configuration in force, without secrets, as a value for encoding/json.
	Config func() any

	// Pending returns the configuration changes that the last reload left for a restart. A nil Pending means that no
	// reload leaves changes.
	Pending func() []Pending

	// Reload reads the configuration again and applies it. The summary says in a few words what the reload did. A nil
	// Reload means that reloading is not supported.
	Reload func(ctx context.Context) (summary string, err error)

	// Upgrade starts a process that replaces this one, and waits until the new process has taken over. The error says
	// why the upgrade failed. A nil Upgrade means that upgrading is not supported.
	Upgrade func(ctx context.Context) (Upgrade, error)

	// Level returns the log level, and SetLevel sets it. SetLevel fails if the level does not exist.
	Level    func() string
	SetLevel func(level string) error

	// AccessLog returns the counts of access log lines; exists is false if there is no access log now. A nil AccessLog
	// means that there never is one.
	AccessLog func() (written, dropped int64, exists bool)

	// EndpointMetrics reports whether /metrics has series for each endpoint. A nil EndpointMetrics means that it has.
	EndpointMetrics func() bool

	// Healthy returns nil if the event loops and all other parts that clients depend on make progress. Otherwise the
	// error names each stuck part on a line of its own. Healthy returns soon, however often it is called. A nil Healthy
	// means that health is unknown.
	Healthy func() error

	// LogDropped counts the log lines that were dropped because the log's reader was too slow. A nil LogDropped means
	// that no line is ever dropped.
	LogDropped func() int64

	times times // the zero value means usualTimes
}

// These constants limit what one client, or all clients together, can take.
const (
	maxConnections = 64 // unless Options say otherwise
	maxBody        = 64 << 10
	maxHeader      = 16 << 10
	maxWait        = 55 * time.Second // maximum wait of a request for events
	answerTime     = 30 * time.Second // maximum time for any other answer, and for each part of a stream
)

// times are the time limits for clients. Tests of other behaviour use longer limits.
type times struct {
	header  time.Duration // to send a request's header
	request time.Duration // to send a whole request
	idle    time.Duration // between requests
	stalled time.Duration // to take an answer, while other clients need the connection
	turn    time.Duration // for a costly request to wait until it may begin
}

func usualTimes() times {
	return times{
		header: 5 * time.Second, request: 10 * time.Second, idle: time.Minute,
		stalled: 5 * time.Second, turn: 2 * time.Second,
	}
}

// A Server serves the admin API on any number of listeners.
type Server struct {
	o       Options
	log     hclog.Logger
	started time.Time
	history *history
	hub     *hub

	slots   *slots
	streams *seats // requests that wait for events
	changes *seats // reloads and upgrades

	work    *answers // answers that need much processor time: one at a time
	walks   *answers // answers that visit all event loops
	queries *answers // answers that query Consul
	scrapes *scrapes
	kernel  kernelLister

	naming chan struct{} // has an element while the name of a user is looked up

	stopping context.Context // ends when streams must end
	stop     context.CancelFunc
	running  sync.WaitGroup
	begin    sync.Once
	released atomic.Bool // see Release

	mu                       sync.Mutex // guards the fields below
	fronts                   map[net.Listener]*front
	reload                   *Reload // the last reload
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
		kernel:  kernelLister{read: o.State.KernelConnections},
		naming:  make(chan struct{}, 1),
		fronts:  map[net.Listener]*front{},
	}
	s.o.State.refused = s.history.refused
	s.scrapes = newScrapes(s)
	s.slots = newSlots(o.MaxConnections, o.times.stalled, s.log)
	s.stopping, s.stop = context.WithCancel(context.Background())
	return s
}
