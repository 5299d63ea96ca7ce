package daemon

import (
	"context"
	"os"
	"syscall"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

// Options are what a Daemon is started with. Config and Output are required.
type Options struct {
	// Config is what is served at first.
	Config *config.Config

	// Diagnostics are what there is to say about Config. Their warnings go to the log.
	Diagnostics config.Diagnostics

	// Load reads the configuration again, for a reload. Nil means that there is nothing to read: a reload fails.
	Load func() (*config.Config, config.Diagnostics)

	// CommandLine names the arguments that Load takes from the command line, whatever the files say.
	CommandLine []string

	// Watch asks for a reload when files change. Nil: no files are watched.
	Watch *Watch

	// AwaitEndpoints has no listener open before its service has endpoints, for a moment at most.
	AwaitEndpoints bool

	// Program is the path of the program that an upgrade starts. Empty: this process cannot be replaced.
	Program string

	// Predecessor is the process to take over from; nil: there is none.
	Predecessor *upgrade.Predecessor

	// Output is what the log and the listeners are printed to. The caller closes it when the daemon has ended.
	Output *Output

	// Version and Revision say what this process was made from. An unknown revision is empty.
	Version, Revision string

	// Started is called when the daemon serves, before Run takes signals. Nil: nothing is called.
	Started func(*Daemon)
}

// UpgradeTimeout is longer than any upgrade takes, successful or not.
const UpgradeTimeout = upgrade.Timeout

// FindPredecessor returns the process that has started this one to take its place, or nil.
func FindPredecessor() (*upgrade.Predecessor, error) { return upgrade.FindPredecessor(os.Getenv) }

// ProgramPath returns the path of the program that an upgrade starts.
func ProgramPath() (string, error) { return upgrade.ProgramPath() }

// Signals returns the signals that a daemon takes: two that end it, one for a reload and one for an upgrade.
func Signals() []os.Signal {
	return []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, upgrade.Signal}
}

// errNothingToRead is the diagnostic of a reload without files.
func errNothingToRead() (*config.Config, config.Diagnostics) {
	return nil, config.Diagnostics{Diagnostics: hcl.Diagnostics{{
		Severity: hcl.DiagError,
		Summary:  "No configuration",
		Detail:   "This lictor was started without a file, so there is nothing to read again.",
	}}}
}

// Go runs f beside the daemon. ctx ends with the daemon, whose end waits for f.
func (d *Daemon) Go(f func(ctx context.Context)) { d.running.Go(func() { f(d.ctx) }) }

// Traffic is what a service has moved since the start.
type Traffic struct {
	Service  string
	Open     int64 // connections and sessions now
	Total    int64 // connections and sessions
	Up, Down int64 // bytes
	Refused  int64 // clients
}

// Traffic returns what each service has moved.
func (d *Daemon) Traffic() []Traffic {
	all := d.proxier.Snapshot()
	traffic := make([]Traffic, len(all))
	for i, s := range all {
		traffic[i] = Traffic{
			Service: s.Service, Open: s.ConnectionsActive + s.SessionsActive, Total: s.Connections + s.Sessions,
			Up: s.BytesUp, Down: s.BytesDown, Refused: s.Refused,
		}
	}
	return traffic
}
