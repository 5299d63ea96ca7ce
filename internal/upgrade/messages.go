// Package upgrade lets one process take the place of another, without a client that is refused.
//
// The earlier process (the predecessor) starts the later one (its successor), of the program that is at its path by
// then. It gives the successor one end of a socket pair, and these messages go over that:
//
//	predecessor                                successor
//	offer: sockets, endpoints, drains  ------>
//	                                           reads its configuration, opens what is new in it
//	                                   <------ ready, or failed and why
//	UDP stands still
//	sessions                           ------>
//	go: what its connections use       ------>
//	                                           serves
//	                                   <------ serving
//	lets go of listeners, Consul, state
//	main: sockets of former processes  ------>
//	                                           tells systemd, Consul; saves its state
//	uses, as long as it has any        ------>
//
// Until the successor serves, the predecessor goes on as if nothing had happened when anything fails: it kills the
// successor. After that it serves the connections that it has to their end.
//
// The two may be of different versions. So messages are JSON: fields may be added.
package upgrade

import (
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/internal/healthcheck"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// protocolVersion is that of the messages. A process refuses any other version.
const protocolVersion = 1

// variable is the environment variable that has the descriptor of the successor's end.
const variable = "LICTOR_HANDOVER_FD"

// maxDescriptors is how many descriptors a message may have: SCM_MAX_FD of Linux, less some for systems with a lower
// limit.
const maxDescriptors = 200

// Bounds of an upgrade.
const (
	readyTimeout  = 30 * time.Second // until the successor is ready; a Consul that hangs may delay that
	switchTimeout = 10 * time.Second // from then until it serves
)

// Timeout is longer than any upgrade takes, successful or not.
const Timeout = readyTimeout + 2*switchTimeout

// A message is any of the messages. A list that does not fit continues in the next message of its kind.
type message struct {
	Kind string `json:"kind"`

	// Of an offer, and of sessions.
	Version  int             `json:"version,omitempty"`
	More     bool            `json:"more,omitempty"`
	Sockets  []socket        `json:"sockets,omitempty"`  // a descriptor each
	State    *State          `json:"state,omitempty"`    // with the last of them
	Sessions []proxy.Session `json:"sessions,omitempty"` // a descriptor each

	// Of go: of the predecessor and of the processes that it has replaced itself. Of main: only the PIDs of these, and
	// a descriptor each, over which they tell what they use.
	Formers []ProcessUses `json:"formers,omitempty"`

	// Of uses.
	Uses []Use `json:"uses,omitempty"`
	All  bool  `json:"all,omitempty"` // else those that have changed

	// Of ready, and of failed.
	Admin  bool   `json:"admin,omitempty"` // the admin API's socket is taken
	Build  *Build `json:"build,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// The kinds of messages.
const (
	kindOffer    = "offer"
	kindReady    = "ready"
	kindFailed   = "failed"
	kindSessions = "sessions"
	kindGo       = "go"
	kindServing  = "serving"
	kindMain     = "main"
	kindUses     = "uses"
	kindMoved    = "moved"
)

// A socket is a listener's, or the admin API's.
type socket struct {
	Protocol string `json:"protocol"` // "tcp", "udp", or "admin"
	Addr     string `json:"addr"`     // as it was asked for
	Service  string `json:"service,omitempty"`
}

const adminSocket = "admin"

// A State is what the predecessor knows. The zero State is that of no predecessor.
type State struct {
	PID     int                      `json:"pid"`
	Sets    []lb.Endpoints           `json:"sets"`
	Drained map[string][]string      `json:"drained,omitempty"`
	Emptied map[string]time.Duration `json:"empty_for,omitempty"` // see lb.RoundRobin.Emptied
	Ejected []lb.Ejection            `json:"ejected,omitempty"`   // see lb.RoundRobin.Ejections
	Names   []lb.KnownName           `json:"names,omitempty"`     // see lb.Resolver.Names
	Links   []cycles.Link            `json:"links,omitempty"`     // see cycles.Detector.Prefer
	Saved   []byte                   `json:"saved,omitempty"`     // see discovery.Consul.Save
	Events  uint64                   `json:"events,omitempty"`    // see endpoints.Events.Begin
	Checked []healthcheck.Result     `json:"checked,omitempty"`   // see healthcheck.Checker.Results
}

// A Build is what a process was made from.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"` // empty: unknown
}

// ProgramPath returns where the program of this process is, and where its successor's will be. Symbolic links in it are
// not resolved, for the new version may be behind another link.
func ProgramPath() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return os.Executable()
	}
	return path, nil
}

// closeDescriptors closes descriptors that came with a message and are of no use.
func closeDescriptors(fds []int) {
	for _, fd := range fds {
		_ = os.NewFile(uintptr(fd), "").Close() // nothing was written to it
	}
}
