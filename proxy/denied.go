package proxy

import (
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// A Denied is a system call or a socket option that the system denies this process.
type Denied struct {
	Call    string
	Error   string // the system's error text for the call
	Instead string // what Lictor does without the call
}

// Denied returns the system calls and socket options that are known to be denied to this process. Denied returns nil if
// none is denied.
func (p *Proxier) Denied() []Denied { return deniedCalls(p.denied) }

func deniedCalls(d *sys.Denials) (all []Denied) {
	for c := range sys.NumCalls {
		if err := d.Err(c); err != 0 {
			all = append(all, Denied{Call: c.String(), Error: err.Error(), Instead: insteadOf[c]})
		}
	}
	return all
}

// newDenials returns an empty set. Each call that the system denies is logged once, with what Lictor does instead.
func newDenials(log hclog.Logger) *sys.Denials {
	return &sys.Denials{OnDenial: func(c sys.Call, err syscall.Errno) {
		log.Warn("the system denies a call", "call", c.String(), "error", err, "instead", insteadOf[c])
	}}
}

// insteadOf says what Lictor does without each call. The log and the API show it.
var insteadOf = [sys.NumCalls]string{
	sys.CallSplice:   "bulk transfers are copied by read and write",
	sys.CallPipe:     "bulk transfers are copied by read and write",
	sys.CallPipeSize: "bulk transfers go through smaller pipes",
	sys.CallRoom:     "bulk data for a slow reader waits in memory, up to 1 MiB a connection",
	sys.CallWritable: "bulk data for a slow reader waits in memory, up to 1 MiB a connection",
	sys.CallUnsent:   "TCP_INFO tells what is delivered; without it too, Lictor waits a second",
	sys.CallRecvmmsg: "UDP datagrams are received one by one",
	sys.CallRecvmsg: "UDP datagrams are received by recvfrom: the kernel chooses the source address of answers, " +
		"and TTLs are not counted down",
	sys.CallSendmmsg:  "UDP datagrams are sent one by one",
	sys.CallSendmsg:   "UDP datagrams are sent by sendto, and the kernel chooses their source address",
	sys.CallJoin:      "UDP datagrams are received one by one",
	sys.CallCut:       "UDP datagrams are sent one by one",
	sys.CallAccept:    "clients are accepted by accept and fcntl",
	sys.CallExclusive: "each new client wakes all event loops",
	sys.CallSharePort: "one event loop serves each UDP listener, and no listener can move to an overlapping address",
	sys.CallReuseAddr: "for a minute after a restart, the port of a listener may be in use",
	sys.CallLocalAddr: "one event loop serves each UDP listener on all addresses, and the kernel " +
		"chooses the source address of answers",
	sys.CallHopsLeft:     "TTLs of UDP datagrams are not counted down: a loop of proxies forwards them for ever",
	sys.CallHops:         "TTLs of UDP datagrams are not counted down: a loop of proxies forwards them for ever",
	sys.CallHopsMessage:  "the TTL of each UDP session's socket is set by a separate call",
	sys.CallLinger:       "connections are reset by a call of connect",
	sys.CallNoDelay:      "small messages may wait until earlier ones are acknowledged",
	sys.CallKeepAlive:    "connections to vanished peers end only at idle_timeout",
	sys.CallUrgentInline: "urgent data of TCP is lost",
	sys.CallOnlyIPv6:     "net.ipv6.bindv6only decides whether a listener on [::] accepts IPv4 clients",
	sys.CallBuffers:      "the kernel may drop more datagrams of a UDP burst",
}
