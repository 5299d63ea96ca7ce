package daemon

import (
	"net"
	"os"
	"slices"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/upgrade"
	"github.com/lictor-proxy/lictor/lb"
)

// restore makes the predecessor's sets the first sets of this process. restore reports whether all Consul services of
// cfg have a set then.
func restore(p *upgrade.Predecessor, sets *endpoints.Sets, cfg *config.Config) bool {
	if p == nil {
		return false
	}
	wanted := map[string]bool{}
	for _, name := range consulNames(cfg) {
		wanted[name] = true
	}
	state := p.State()
	known := slices.DeleteFunc(slices.Clone(state.Sets), func(u lb.Endpoints) bool { return !wanted[u.Service] })
	sets.Import(known, drainsOf(&state))
	return len(known) == len(wanted)
}

// readLedger continues the counters of p. Without p's counters, those of this process start at zero.
func (d *Daemon) readLedger(p *upgrade.Predecessor) {
	if err := d.ledger.read(p.Counters()); err != nil {
		d.log.Warn("counters start at zero, those of the replaced process cannot be read", "error", err)
	}
}

// drainsOf returns the drains of a predecessor. An older version names only the endpoints.
func drainsOf(state *upgrade.State) []endpoints.ExportedDrain {
	drains := state.Drains
	if drains == nil {
		for service, ids := range state.Drained {
			for _, id := range ids {
				drains = append(drains, endpoints.ExportedDrain{Service: service, Endpoint: id})
			}
		}
	}
	return drains
}

// drainedIDs returns the IDs of the drained endpoints by service, for a successor of an older version.
func drainedIDs(drains []endpoints.ExportedDrain) map[string][]string {
	ids := map[string][]string{}
	for _, d := range drains {
		ids[d.Service] = append(ids[d.Service], d.Endpoint)
	}
	return ids
}

// inheritAdmin returns the predecessor's admin listener if cfg wants that address, and nil otherwise.
func inheritAdmin(p *upgrade.Predecessor, cfg config.Admin, log hclog.Logger) net.Listener {
	file, address := p.Admin()
	if file == nil {
		return nil
	}
	defer func() { _ = file.Close() }() // the listener has its own descriptor
	a, err := admin.ParseAddress(address)
	if err != nil || !wantsAdmin(cfg, a) {
		return nil
	}
	l, err := admin.Inherit(a, file)
	if err != nil {
		log.Warn("the admin API was not taken over", "error", err)
		return nil
	}
	return l
}

// wantsAdmin reports whether cfg wants the admin API at address a.
func wantsAdmin(cfg config.Admin, a admin.Address) bool {
	switch {
	case cfg.Off:
		return false
	case cfg.Socket != "":
		return a.Socket == cfg.Socket
	case cfg.TCP.IsValid():
		return a.TCP == cfg.TCP || cfg.TCP.Port() == 0 && a.TCP.Addr() == cfg.TCP.Addr()
	}
	return slices.Contains(admin.DefaultSockets(os.Getenv), a.Socket)
}
