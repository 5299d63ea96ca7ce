package daemon

import (
	"context"
	"os"
	"syscall"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

// Options configure a Daemon. Config and Output are required.
type Options struct {
	// Config is the first configuration to serve.
	Config *config.Config

	// Diagnostics are the diagnostics of Config. The daemon logs their warnings.
	Diagnostics config.Diagnostics

	// Load reads the configuration again, for a reload. If Load is nil, reloads fail.
	Load func() (*config.Config, config.Diagnostics)

	// CommandLine names the arguments that the command line sets. Load ignores their values in files.
	CommandLine []string

	// Watch asks for a reload when files change. If Watch is nil, no files are watched.
	Watch *Watch

	// AwaitEndpoints delays each listener until its service has endpoints, for a limited time.
	AwaitEndpoints bool

	// Program is the path of the program that an upgrade starts. If it is empty, upgrades fail.
	Program string

	// Predecessor is the process to take over from, or nil.
	Predecessor *upgrade.Predecessor

	// Output receives the log and the list of listeners. The caller closes it after the daemon has ended.
	Output *Output

	// Version and Revision identify the build. An unknown revision is empty.
	Version, Revision string

	// Started is called when the daemon serves, before Run handles signals. Started may be nil.
	Started func(*Daemon)
}

// UpgradeTimeout limits the duration of an upgrade.
const UpgradeTimeout = upgrade.Timeout

// FindPredecessor returns the process that started this one as its successor, or nil.
func FindPredecessor() (*upgrade.Predecessor, error) { return upgrade.FindPredecessor(os.Getenv) }

// ProgramPath returns the path of the program that an upgrade starts.
func ProgramPath() (string, error) { return upgrade.ProgramPath() }

// Signals returns the signals that a daemon handles: two end it, one causes a reload and one causes an upgrade.
func Signals() []os.Signal {
	return []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, upgrade.Signal}
}

// errNothingToRead returns the diagnostic for a reload without configuration files.
func errNothingToRead() (*config.Config, config.Diagnostics) {
	return nil, config.Diagnostics{Diagnostics: hcl.Diagnostics{{
		Severity: hcl.DiagError,
		Summary:  "No configuration",
		Detail:   "This lictor was started without a configuration file, so a reload has nothing to read.",
	}}}
}

// Go runs f in a goroutine. ctx ends with the daemon, and the daemon waits for f.
func (d *Daemon) Go(f func(ctx context.Context)) { d.running.Go(func() { f(d.ctx) }) }

// Traffic is the traffic of a service since the start.
type Traffic struct {
	Service  string
	Open     int64 // open connections and sessions
	Total    int64 // all connections and sessions
	Up, Down int64 // bytes
	Refused  int64 // refused clients
}

// Traffic returns the traffic of each service.
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
