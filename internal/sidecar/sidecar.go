// Package sidecar makes this host's services members of Consul's service mesh. For each instance of an exposed service
// that is registered at the agent, it registers a service of the kind connect-proxy, whose listener Lictor serves.
//
//	r := sidecar.New(sidecar.Options{
//		Consul: client, Bind: bind, Ports: sidecar.Ports{First: 21000, Last: 21255}, Instances: serve,
//	})
//	r.Apply([]sidecar.Service{{Name: "web"}})
//	go r.Run(ctx)
//	...
//	r.Drain(ctx) // peers take other instances
//	r.End(ctx)   // after the last connection
//
// Run asks the agent for its services every second, and at once if a registration of an exposed instance changes. The
// agent answers both from its own memory, so new instances and new ports are followed while all servers are away. No
// query to the servers would do: those for a service name make each host hear of all instances, and those for a node
// return for changes of all nodes.
//
// A registration of Lictor bears the mark MarkOwner in its Meta, and an ID of its own. Only what bears this Lictor's
// mark is changed or removed. While another sidecar serves the same instance, the instance is refused. A sidecar of
// another Lictor has the same ID, so there is only one; it is taken over when the agent says that its listener is gone.
//
// The package does not carry connections and does not hold certificates.
package sidecar

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// MarkOwner is the key in the Meta of Lictor's registrations. Its value is the Options.Owner of the Lictor.
const MarkOwner = "lictor-owner"

// idSuffix makes the ID of a registration from the ID of the instance. The suffix differs from the one that Consul
// gives the sidecars of other programs.
const idSuffix = "-lictor-proxy"

// nameSuffix makes the name of a registration from the name of the service. It is the suffix of all sidecars, so the
// rights of a token for a service, such as those of a service identity, are sufficient.
const nameSuffix = "-sidecar-proxy"

// A Service is a service whose instances are exposed.
type Service struct {
	// Name is the name of the service in Consul, in the exact letters of its registration.
	Name string

	// Local is the address at which this host's instance accepts connections. Without an address, it is a loopback
	// address; with the port zero, the port of the registration. An address with a port is for one instance.
	Local netip.AddrPort
}

// An Instance is an exposed instance.
type Instance struct {
	ID        string         // of Lictor's registration
	Service   string         // name of the service
	ServiceID string         // of the instance's own registration
	Listen    netip.AddrPort // where peers in the mesh connect to
	Local     netip.AddrPort // where the instance accepts connections
}

// Ports is a range of ports with both ends included.
type Ports struct{ First, Last uint16 }

func (p Ports) String() string { return fmt.Sprintf("%d-%d", p.First, p.Last) }

// holds reports whether n is in the range.
func (p Ports) holds(n uint16) bool { return n != 0 && p.First <= n && n <= p.Last }

// Options configure a Registrar.
type Options struct {
	// Consul is the client of the agent at which the instances are registered. It must never move to another agent, so
	// it has one address.
	Consul *consul.Client

	// Logger receives messages for operators. A nil Logger means no log.
	Logger hclog.Logger

	// Bind is the address of the listeners, which is registered. If it is unspecified, the address of the node is
	// registered.
	Bind netip.Addr

	// Ports are for the listeners: one for each instance.
	Ports Ports

	// StateDir is a folder for the memory of ports. A restarted Lictor gives an instance its former port. Empty means
	// no memory, besides the registrations that a killed Lictor has left.
	StateDir string

	// Saved is what Export of another Registrar has returned. The new Registrar begins with its instances. Empty means
	// nothing. What cannot be read is ignored.
	Saved []byte

	// Owner tells this Lictor's registrations from those of another Lictor at the same agent. It must survive a
	// restart. Empty means Bind and Ports.
	Owner string

	// LeadsBack reports whether an instance at this address is a listener of this Lictor, such as the admin API. Such
	// an instance is refused. A nil LeadsBack means that none is.
	LeadsBack func(netip.AddrPort) bool

	// Instances is called with all instances that need a listener, sorted, whenever they change. It opens the
	// listeners, which are registered after it has returned nil. After an error, which must leave the listeners as they
	// were, it is called again. The calls do not overlap. A nil Instances means no calls.
	Instances func([]Instance) error

	// Report is called for each Report, by any goroutine, and must not block. A nil Report means no calls.
	Report func(Report)
}

// withDefaults returns o with defaults in place of zero values.
func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Owner == "" {
		o.Owner = fmt.Sprintf("%s:%s", o.Bind, o.Ports)
	}
	if o.LeadsBack == nil {
		o.LeadsBack = func(netip.AddrPort) bool { return false }
	}
	if o.Instances == nil {
		o.Instances = func([]Instance) error { return nil }
	}
	if o.Report == nil {
		o.Report = func(Report) {}
	}
	return o
}

// NameOf returns the name of the registrations for the instances of a service.
func NameOf(service string) string { return service + nameSuffix }

// Reasons why an instance is not exposed. Refusal.Err wraps one of them.
var (
	ErrAbsent    = errors.New("no instance is registered at this agent")
	ErrSidecar   = errors.New("another sidecar serves the instance")
	ErrNative    = errors.New("the instance speaks for itself in the mesh")
	ErrLeadsBack = errors.New("the instance is a listener of this lictor")
	ErrAddress   = errors.New("the instance has no usable address")
	ErrNoPort    = errors.New("no port for a listener")
)

// A Refusal says why an instance is not exposed.
type Refusal struct {
	Service   string
	ServiceID string // empty with ErrAbsent
	Err       error
}

// An InstanceState describes an exposed instance.
type InstanceState struct {
	Instance
	Registered time.Time // when the agent last accepted the registration; zero: never
	Lost       time.Time // since when the agent knows neither the instance nor the registration; zero: it does
	Err        error     // why the last registration failed; nil: it did not
	CutOff     string    // what the agent says of its check if it cannot connect to the listener; empty: it can
}

// A State is what a Registrar does.
type State struct {
	Owner     string
	Instances []InstanceState // that have a port, sorted by service and ID
	Refused   []Refusal       // sorted likewise
	Answered  time.Time       // when the agent last listed its services; zero: never
	Err       error           // why the last question for the services failed; nil: it did not
}

// A Report says what has happened to an instance.
type Report struct {
	What     What
	Instance Instance // with Refused, only Service and ServiceID
	Err      error    // with Refused and Failed
}

// What says what a Report is about.
type What string

// Kinds of reports.
const (
	Exposed What = "exposed" // the instance is registered as a member of the mesh
	Ended   What = "ended"   // the instance is no longer exposed
	Refused What = "refused" // the instance is not exposed
	Failed  What = "failed"  // the agent accepts no registration; the listener stays
	Works   What = "works"   // the agent accepts registrations again
	CutOff  What = "cut off" // the agent cannot connect to the listener, so peers do not use it
	Lost    What = "lost"    // the agent has lost the instance and its registration; the listener stays
)
