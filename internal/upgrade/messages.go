// Package upgrade lets one process replace another without refusing a client.
//
// The old process (the predecessor) starts the new one (the successor), from the program at its own path. The successor
// inherits one end of a socket pair, which carries these messages:
//
//	predecessor                                successor
//	offer: sockets, endpoints, drains  ------>
//	                                           reads its configuration, opens new listeners
//	                                   <------ ready, or failed and why
//	stops forwarding UDP
//	sessions                           ------>
//	go: what its connections use,
//	and its counters                   ------>
//	                                           serves
//	                                   <------ serving
//	releases listeners, Consul, state
//	main: sockets of former processes,
//	and its counters                   ------>
//	                                           notifies systemd, Consul; saves its state
//	uses and counters, until it ends   ------>
//
// If anything fails before the successor serves, the predecessor kills the successor and continues unchanged. After
// that, the predecessor serves its open connections until they end.
//
// The two processes may have different versions. Messages are JSON, because fields can be added to JSON.
package upgrade

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/healthcheck"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// protocolVersion is the version of the messages. A process refuses any other version.
const protocolVersion = 1

// variable is the environment variable with the descriptor of the successor's end.
const variable = "LICTOR_HANDOVER_FD"

// maxDescriptors is the maximum number of descriptors in a message: SCM_MAX_FD of Linux, reduced for systems with a
// lower limit.
const maxDescriptors = 200

// Time limits of an upgrade.
const (
	readyTimeout  = 30 * time.Second // until the successor is ready, which a hung Consul may delay
	switchTimeout = 10 * time.Second // from ready until the successor serves
)

// Timeout limits the duration of an upgrade.
const Timeout = readyTimeout + 2*switchTimeout

// A message has the fields of all kinds of messages. A list that is too long continues in the next message of the same
// kind.
type message struct {
	Kind string `json:"kind"`

	// Fields of offer and sessions.
	Version  int             `json:"version,omitempty"`
	More     bool            `json:"more,omitempty"`
	Sockets  []socket        `json:"sockets,omitempty"`  // with one descriptor each
	State    *State          `json:"state,omitempty"`    // in the last message
	Sessions []proxy.Session `json:"sessions,omitempty"` // with one descriptor each

	// Field of go and main. In go, it has the uses of the predecessor and of the processes that the predecessor has
	// replaced. In main, it has only the PIDs of the latter, with one descriptor each, over which they report their
	// uses.
	Formers []ProcessUses `json:"formers,omitempty"`

	// Fields of uses.
	Uses []Use `json:"uses,omitempty"`
	All  bool  `json:"all,omitempty"` // false if Uses has only the changed counts

	// Counters of go, main and uses: what the caller of Commit, Release or Tell has passed.
	Counters json.RawMessage `json:"counters,omitempty"`

	// Fields of ready and failed.
	Admin  bool   `json:"admin,omitempty"` // the successor has taken the admin API's socket
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

// A socket describes a listener, or the admin API's listener.
type socket struct {
	Protocol string `json:"protocol"` // "tcp", "udp", or "admin"
	Addr     string `json:"addr"`     // as configured
	Service  string `json:"service,omitempty"`
	Foreign  bool   `json:"foreign,omitempty"` // see proxy.Inherited
}

const adminSocket = "admin"

// A State is what the predecessor knows. The zero State means that there is no predecessor.
type State struct {
	PID     int                       `json:"pid"`
	Sets    []lb.Endpoints            `json:"sets"`
	Drains  []endpoints.ExportedDrain `json:"drains,omitempty"`
	Drained map[string][]string       `json:"drained,omitempty"`   // drained IDs, for processes without Drains
	Emptied map[string]time.Duration  `json:"empty_for,omitempty"` // see lb.RoundRobin.Emptied
	Ejected []lb.Ejection             `json:"ejected,omitempty"`   // see lb.RoundRobin.Ejections
	Denials []lb.Denying              `json:"denials,omitempty"`   // see lb.RoundRobin.Denials
	Names   []lb.KnownName            `json:"names,omitempty"`     // see lb.Resolver.Names
	Links   []cycles.Link             `json:"links,omitempty"`     // see cycles.Detector.Prefer
	Saved   []byte                    `json:"saved,omitempty"`     // see discovery.Consul.Save
	History []endpoints.Event         `json:"history,omitempty"`   // see endpoints.Events.Export
	Events  uint64                    `json:"events,omitempty"`    // see endpoints.Events.Begin
	Checked []healthcheck.Result      `json:"checked,omitempty"`   // see healthcheck.Checker.Results
	Mesh    []byte                    `json:"mesh,omitempty"`      // see mesh.Store.Export; has private keys

	Sidecars []byte            `json:"sidecars,omitempty"` // see sidecar.Registrar.Export
	Exposed  map[string]string `json:"exposed,omitempty"`  // names of exposed instances, by the ID of the registration
}

// A Build identifies the version of a program.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"` // empty if unknown
}

// ProgramPath returns the path of this process's program, from which a successor is started. ProgramPath does not
// resolve symbolic links, because the link may point to a new version later.
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

// closeDescriptors closes descriptors that came with a message and are not needed.
func closeDescriptors(fds []int) {
	for _, fd := range fds {
		_ = os.NewFile(uintptr(fd), "").Close() // nothing was written to it
	}
}
