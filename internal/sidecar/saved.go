package sidecar

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/internal/regular"
	"github.com/lictor-proxy/lictor/internal/statefile"
)

// The file in StateDir, its mark and its version. Its body is a savedPorts, as JSON.
const (
	portsFile    = "sidecars.saved"
	portsMark    = "lictor-sidecars"
	portsVersion = 1

	maxPortsFile = 64 << 20 // in bytes; 65,535 instances with the longest names fit

	// maxOwners is how many marks of this Lictor are remembered. A mark changes with Bind and Ports.
	maxOwners = 8
)

// A savedPorts is a memory, and the marks of the Lictor.
type savedPorts struct {
	Owners []string    `json:"owners"`
	Ports  []savedPort `json:"ports"`
}

type savedPort struct {
	Instance string    `json:"instance"` // ID
	Port     uint16    `json:"port"`
	Used     time.Time `json:"used"`
}

// saved is what Export returns, as JSON.
type saved struct {
	savedPorts
	Instances []savedInstance `json:"instances"`
}

type savedInstance struct {
	Service   string         `json:"service"`
	ServiceID string         `json:"service_id"`
	Listen    netip.AddrPort `json:"listen"`
	Local     netip.AddrPort `json:"local"`
}

// savedPorts returns what the file in StateDir has.
func (r *Registrar) savedPorts() savedPorts {
	all := savedPorts{Owners: r.run.owners}
	for id, p := range r.run.memory.ports {
		all.Ports = append(all.Ports, savedPort{id, p.number, p.used})
	}
	slices.SortFunc(all.Ports, func(a, b savedPort) int { return strings.Compare(a.Instance, b.Instance) })
	return all
}

// encodePorts returns the content of the file.
func encodePorts(all savedPorts) ([]byte, error) {
	body, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return statefile.Encode(portsMark, portsVersion, body), nil
}

// decodePorts returns what a file has. For a damaged or foreign file it returns an error.
func decodePorts(file []byte) (all savedPorts, err error) {
	body, err := statefile.Decode(portsMark, portsVersion, file)
	if err != nil {
		return savedPorts{}, err
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return savedPorts{}, fmt.Errorf("%w: %w", statefile.ErrForeign, err)
	}
	ids, numbers := map[string]bool{}, map[uint16]bool{}
	for _, p := range all.Ports {
		if p.Instance == "" || p.Port == 0 || ids[p.Instance] || numbers[p.Port] {
			return savedPorts{}, fmt.Errorf("%w: an instance or a port is missing, or occurs twice",
				statefile.ErrForeign)
		}
		ids[p.Instance], numbers[p.Port] = true, true
	}
	return all, nil
}

// load reads the file in StateDir. A file that cannot be used is ignored, and replaced later.
func (r *Registrar) load() {
	if r.o.StateDir == "" {
		return
	}
	path := filepath.Join(r.o.StateDir, portsFile)
	file, err := regular.ReadFile(path, maxPortsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var all savedPorts
	if err == nil {
		all, err = decodePorts(file)
	}
	if err != nil {
		r.log.Warn("the ports of exposed instances cannot be read, instances may get other ports than before",
			"file", path, "reason", err)
		return
	}
	r.remember(all)
}

// remember adds saved ports and marks to those that are known.
func (r *Registrar) remember(all savedPorts) {
	for _, owner := range all.Owners {
		if owner != "" && !slices.Contains(r.run.owners, owner) && len(r.run.owners) < maxOwners {
			r.run.owners = append(r.run.owners, owner)
		}
	}
	for _, p := range all.Ports {
		if r.o.Ports.holds(p.Port) {
			r.run.memory.give(p.Instance, p.Port, p.Used)
		}
	}
}

// save writes the file in StateDir, if the memory has changed.
func (r *Registrar) save() {
	if !r.run.dirty || r.o.StateDir == "" {
		return
	}
	file, err := encodePorts(r.savedPorts())
	if err == nil {
		err = r.replaceFile(file)
	}
	switch {
	case errors.Is(err, errOver):
	case err == nil:
		r.run.dirty, r.run.unsaved = false, false
	case !r.run.unsaved:
		r.run.unsaved = true
		r.log.Warn("the ports of exposed instances cannot be saved, a restarted lictor may choose others", "folder",
			r.o.StateDir, "error", err)
	}
}

// Export returns the instances and the memory of ports, for Options.Saved of another Registrar.
func (r *Registrar) Export() []byte { return r.state.Load().export }

// publish makes what Run knows visible.
func (r *Registrar) publish() {
	p := &published{accepted: slices.Clone(r.run.accepted)}
	p.State = State{Owner: r.o.Owner, Refused: slices.Clone(r.run.refused), Answered: r.run.answered, Err: r.run.err}
	for _, i := range r.sorted() {
		s := InstanceState{Instance: i.Instance, Lost: i.lost, Err: i.err, CutOff: i.cutOff}
		if i.sent != nil {
			s.Registered = i.sent.at
		}
		if i.leaving.IsZero() && i.Listen.IsValid() {
			p.Instances = append(p.Instances, s)
		}
	}
	all := saved{savedPorts: r.savedPorts()}
	for _, i := range r.run.accepted {
		all.Instances = append(all.Instances, savedInstance{i.Service, i.ServiceID, i.Listen, i.Local})
	}
	p.export, _ = json.Marshal(all) // cannot fail for these types
	r.state.Store(p)
}

// A published is what Run has made visible.
type published struct {
	State
	accepted []Instance
	export   []byte
}

// restore takes what Export has returned. What cannot be used is left out.
func (r *Registrar) restore(text []byte) {
	var all saved
	if len(text) == 0 || json.Unmarshal(text, &all) != nil {
		return
	}
	r.remember(all.savedPorts)
	for _, s := range all.Instances {
		usable := s.Service != "" && s.ServiceID != "" && s.Local.IsValid() &&
			s.Listen.Addr() == r.o.Bind && r.o.Ports.holds(s.Listen.Port())
		if !usable || r.run.known[s.ServiceID] != nil {
			continue
		}
		i := &instance{sent: &registrationSent{}, Instance: Instance{ID: s.ServiceID + idSuffix, Service: s.Service,
			ServiceID: s.ServiceID, Listen: s.Listen, Local: s.Local}}
		r.run.known[s.ServiceID] = i
		r.note(i.ID, true)
	}
	for _, i := range r.sorted() {
		r.run.accepted = append(r.run.accepted, i.Instance)
	}
}
