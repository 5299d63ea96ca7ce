package proxy

import (
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// A Denied is a system call or a socket option that the system denies this process.
type Denied struct {
	Call    string
	Error   string // of the system, in words
	Instead string // what Lictor does without it
}

// Denied returns the system calls and socket options that the system denies this process, as far as that is known.
// Nil: none.
func (p *Proxier) Denied() []Denied { return deniedCalls(p.denied) }

func deniedCalls(d *sys.Denials) (all []Denied) {
	for c := range sys.NumCalls {
		if err := d.Err(c); err != 0 {
			all = append(all, Denied{Call: c.String(), Error: err.Error(), Instead: insteadOf[c]})
		}
	}
	return all
}

// newDenials returns an empty set that says in the log what is denied, and what Lictor does instead.
func newDenials(log hclog.Logger) *sys.Denials {
	return &sys.Denials{OnDenial: func(c sys.Call, err syscall.Errno) {
		log.Warn("the system denies a call", "call", c.String(), "error", err, "instead", insteadOf[c])
	}}
}

// insteadOf says, for the log and the API, what happens without each call.
var insteadOf = [sys.NumCalls]string{
	sys.CallSplice:   "bulk transfers are copied by read and write",
	sys.CallPipe:     "bulk transfers are copied by read and write",
	sys.CallPipeSize: "bulk transfers go through smaller pipes",
	sys.CallRoom:     "bulk that its destination does not take waits in memory, up to 1 MiB a connection",
	sys.CallWritable: "bulk that its destination does not take waits in memory, up to 1 MiB a connection",
	sys.CallUnsent:   "TCP_INFO, or else a wait of a second, tells what is delivered",
	sys.CallRecvmmsg: "UDP datagrams are received one by one",
	sys.CallRecvmsg: "UDP datagrams are received by recvfrom: answers leave from an address of the kernel's choice, " +
		"and hops are not counted",
	sys.CallSendmmsg:  "UDP datagrams are sent one by one",
	sys.CallSendmsg:   "UDP datagrams are sent by sendto, from an address of the kernel's choice",
	sys.CallJoin:      "UDP datagrams are received one by one",
	sys.CallCut:       "UDP datagrams are sent one by one",
	sys.CallAccept:    "clients are accepted by accept and fcntl",
	sys.CallExclusive: "each new client wakes all event loops",
	sys.CallSharePort: "one event loop serves each UDP listener, and no address can change to one that overlaps",
	sys.CallReuseAddr: "after a restart a listener may find its port in use for a minute",
	sys.CallLocalAddr: "one event loop serves each UDP listener on all addresses, whose answers leave from an " +
		"address of the kernel's choice",
	sys.CallHopsLeft:     "hops of UDP datagrams are not counted: those that circle between proxies do not end",
	sys.CallHops:         "hops of UDP datagrams are not counted: those that circle between proxies do not end",
	sys.CallHopsMessage:  "the socket of each UDP session is told its hops by a call",
	sys.CallLinger:       "connections are reset by connect",
	sys.CallNoDelay:      "small messages may wait for the acknowledgement of those before",
	sys.CallKeepAlive:    "connections to peers that have vanished end at idle_timeout only",
	sys.CallUrgentInline: "urgent data is lost",
	sys.CallOnlyIPv6:     "net.ipv6.bindv6only decides whether a listener on [::] takes clients of IPv4",
	sys.CallBuffers:      "bursts of UDP datagrams have less room",
}
