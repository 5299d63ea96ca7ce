package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// How a lictor takes the place of another one. The earlier starts the later one, of the program that is at its path by then, with one
// end of a socket pair, and these messages go over that:
//
//	predecessor                                successor
//	offer: sockets, endpoints, drains  ------>
//	                                           reads its configuration, opens what is new in it
//	                                   <------ ready, or failed and why
//	UDP stands still
//	sessions                           ------>
//	go                                 ------>
//	                                           serves
//	                                   <------ serving
//	lets go of listeners, Consul, state
//	main                               ------>
//	                                           tells systemd, Consul; saves its state
//
// Until the successor serves, the predecessor goes on as if nothing had happened when anything fails: it kills the successor. After that
// it serves what connections it has to their end.

// handoverVersion is that of the messages: a later one may be understood by nobody who knows this one.
const handoverVersion = 1

// handoverVariable is the environment variable that has the descriptor of the socket.
const handoverVariable = "LICTOR_HANDOVER_FD"

// Bounds of an upgrade: until the successor is ready, which a Consul that hangs may delay, and from then until it serves.
const (
	upgradeTime = 30 * time.Second
	switchTime  = 10 * time.Second
)

// A handoverMessage is any of the messages. Those that have more to say than fits go on with the next of their kind.
type handoverMessage struct {
	Kind string `json:"kind"`

	// Of an offer.
	Version  int             `json:"version,omitempty"`
	More     bool            `json:"more,omitempty"`
	Sockets  []handedSocket  `json:"sockets,omitempty"`  // a descriptor each
	State    *handedState    `json:"state,omitempty"`    // with the last of them
	Sessions []proxy.Session `json:"sessions,omitempty"` // a descriptor each

	// Of ready, and of failed.
	Admin  bool   `json:"admin,omitempty"` // the admin API's socket is taken
	Build  *build `json:"build,omitempty"`
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
)

// A handedSocket is a listener's, or the admin API's.
type handedSocket struct {
	Protocol string `json:"protocol"` // "tcp", "udp", or "admin"
	Addr     string `json:"addr"`     // that it was asked for as
	Service  string `json:"service,omitempty"`
}

const adminSocket = "admin"

// A handedState is what the predecessor knows.
type handedState struct {
	PID     int                 `json:"pid"`
	Sets    []lb.Endpoints      `json:"sets"`
	Drained map[string][]string `json:"drained,omitempty"`
	Links   []cycles.Link       `json:"links,omitempty"` // see cycles.Detector.Prefer
	Saved   []byte              `json:"saved,omitempty"` // see discovery.Consul.Save
}

// programPath is where the program of this process is, and where its successor's will be: not resolved, for an upgrade may be another link.
func programPath() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return os.Executable()
	}
	return path, nil
}
