package kernel

import "fmt"

// An Error says why the kernel path cannot be used on this host. Open, Probe and Path.Set return it.
type Error struct {
	Reason Reason
	Detail string // what is missing, for an operator: "CAP_BPF and CAP_NET_ADMIN are missing"
	Err    error  // the error of the system; may be nil
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Detail
	}
	return fmt.Sprintf("%s: %v", e.Detail, e.Err)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Reason is the reason why the kernel path cannot be used.
type Reason string

// The reasons.
const (
	NoCapability Reason = "capability" // the process lacks a capability
	Denied       Reason = "denied"     // a security policy forbids bpf(2)
	NoCgroup     Reason = "cgroup"     // no cgroup2 hierarchy is mounted, or the group does not exist
	PrivateRoot  Reason = "namespace"  // this process sees only a part of the cgroup2 hierarchy
	NoSupport    Reason = "kernel"     // the kernel is too old, or lacks an option
	TestFailed   Reason = "self-test"  // the programs are attached, but do not work
	Full         Reason = "full"       // a map, or the control group, has no room left
	OtherSystem  Reason = "system"     // not Linux on amd64 or arm64
)
