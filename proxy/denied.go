package proxy

import (
	"syscall"

	"github.com/hashicorp/go-hclog"
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

func deniedCalls(d *denials) (all []Denied) {
	for c := range calls {
		if err := d.error(c); err != 0 {
			all = append(all, Denied{Call: c.String(), Error: err.Error(), Instead: insteadOf[c]})
		}
	}
	return all
}

// newDenials returns an empty set that says in the log what is denied, and what Lictor does instead.
func newDenials(log hclog.Logger) *denials {
	return &denials{noted: func(c call, err syscall.Errno) {
		log.Warn("the system denies a call", "call", c.String(), "error", err, "instead", insteadOf[c])
	}}
}

// insteadOf says, for the log and the API, what happens without each call.
var insteadOf = [calls]string{
	callSplice:   "bulk transfers are copied by read and write",
	callPipe:     "bulk transfers are copied by read and write",
	callPipeSize: "bulk transfers go through smaller pipes",
	callRoom:     "bulk that its destination does not take waits in memory, up to 1 MiB a connection",
	callWritable: "bulk that its destination does not take waits in memory, up to 1 MiB a connection",
	callUnsent:   "TCP_INFO, or else a wait of a second, tells what is delivered",
	callRecvmmsg: "UDP datagrams are received one by one",
	callRecvmsg: "UDP datagrams are received by recvfrom: answers leave from an address of the kernel's choice, " +
		"and hops are not counted",
	callSendmmsg:     "UDP datagrams are sent one by one",
	callSendmsg:      "UDP datagrams are sent by sendto, from an address of the kernel's choice",
	callJoin:         "UDP datagrams are received one by one",
	callCut:          "UDP datagrams are sent one by one",
	callAccept:       "clients are accepted by accept and fcntl",
	callExclusive:    "each new client wakes all event loops",
	callSharePort:    "one event loop serves each UDP listener, and no address can change to one that overlaps",
	callReuseAddr:    "after a restart a listener may find its port in use for a minute",
	callLocalAddr:    "answers of a UDP listener on all addresses leave from an address of the kernel's choice",
	callHopsLeft:     "hops of UDP datagrams are not counted: those that circle between proxies do not end",
	callHops:         "hops of UDP datagrams are not counted: those that circle between proxies do not end",
	callHopsMessage:  "the socket of each UDP session is told its hops by a call",
	callLinger:       "connections are reset by connect",
	callNoDelay:      "small messages may wait for the acknowledgement of those before",
	callKeepAlive:    "connections to peers that have vanished end at idle_timeout only",
	callUrgentInline: "urgent data is lost",
	callOnlyIPv6:     "net.ipv6.bindv6only decides whether a listener on [::] takes clients of IPv4",
	callBuffers:      "bursts of UDP datagrams have less room",
}
