package proxy

import (
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/go-hclog"
)

// A call is a system call or a socket option that an engine prefers, and that it can do without. Sandboxes and
// seccomp filters deny some of them, and so do old kernels and systems that imitate Linux.
type call int

const (
	callSplice call = iota
	callPipe
	callPipeSize
	callRoom
	callWritable
	callUnsent
	callRecvmmsg
	callRecvmsg
	callSendmmsg
	callSendmsg
	callJoin
	callCut
	callAccept
	callExclusive
	callSharePort
	callReuseAddr
	callLocalAddr
	callHopsLeft
	callHops
	callHopsMessage
	callLinger
	callNoDelay
	callKeepAlive
	callUrgentInline
	callOnlyIPv6
	callBuffers
	calls // how many there are
)

// callTexts says, for the log and the API, what each call is and what happens without it.
var callTexts = [calls]struct{ name, instead string }{
	callSplice:   {"splice", "bulk transfers are copied by read and write"},
	callPipe:     {"pipe2", "bulk transfers are copied by read and write"},
	callPipeSize: {"F_SETPIPE_SZ", "bulk transfers go through smaller pipes"},
	callRoom: {"SO_MEMINFO", "bulk that its destination does not take waits in memory, up to 1 MiB a " +
		"connection"},
	callWritable: {"ppoll", "bulk that its destination does not take waits in memory, up to 1 MiB a connection"},
	callUnsent:   {"SIOCOUTQ", "TCP_INFO, or else a wait of a second, tells what is delivered"},
	callRecvmmsg: {"recvmmsg", "UDP datagrams are received one by one"},
	callRecvmsg: {"recvmsg", "UDP datagrams are received by recvfrom: answers leave from an address of the " +
		"kernel's choice, and hops are not counted"},
	callSendmmsg:  {"sendmmsg", "UDP datagrams are sent one by one"},
	callSendmsg:   {"sendmsg", "UDP datagrams are sent by sendto, from an address of the kernel's choice"},
	callJoin:      {"UDP_GRO", "UDP datagrams are received one by one"},
	callCut:       {"UDP_SEGMENT", "UDP datagrams are sent one by one"},
	callAccept:    {"accept4", "clients are accepted by accept and fcntl"},
	callExclusive: {"EPOLLEXCLUSIVE", "each new client wakes all event loops"},
	callSharePort: {"SO_REUSEPORT", "one event loop serves each UDP listener, and no address can change to one " +
		"that overlaps"},
	callReuseAddr: {"SO_REUSEADDR", "after a restart a listener may find its port in use for a minute"},
	callLocalAddr: {"IP_PKTINFO", "answers of a UDP listener on all addresses leave from an address of the " +
		"kernel's choice"},
	callHopsLeft: {"IP_RECVTTL", "hops of UDP datagrams are not counted: those that circle between proxies do " +
		"not end"},
	callHops:         {"IP_TTL", "hops of UDP datagrams are not counted: those that circle between proxies do not end"},
	callHopsMessage:  {"IP_TTL of a datagram", "the socket of each UDP session is told its hops by a call"},
	callLinger:       {"SO_LINGER", "connections are reset by connect"},
	callNoDelay:      {"TCP_NODELAY", "small messages may wait for the acknowledgement of those before"},
	callKeepAlive:    {"SO_KEEPALIVE", "connections to peers that have vanished end at idle_timeout only"},
	callUrgentInline: {"SO_OOBINLINE", "urgent data is lost"},
	callOnlyIPv6:     {"IPV6_V6ONLY", "net.ipv6.bindv6only decides whether a listener on [::] takes clients of IPv4"},
	callBuffers:      {"SO_RCVBUF", "bursts of UDP datagrams have less room"},
}

func (c call) String() string { return callTexts[c].name }

// A Denied is a system call or a socket option that the system denies this process.
type Denied struct {
	Call    string
	Error   string // of the system, in words
	Instead string // what Lictor does without it
}

// denials are the calls that the system denies. An engine tries those that it uses when it starts. One that is denied
// then, or at a later use, counts as denied for good. All methods may be called concurrently.
type denials struct {
	log    hclog.Logger
	errors [calls]atomic.Uintptr // the error of each that is denied; zero for the others
}

func newDenials(log hclog.Logger) *denials { return &denials{log: log} }

// has reports whether c is denied.
func (d *denials) has(c call) bool { return d.errors[c].Load() != 0 }

// note notes that c is denied, and says so once.
func (d *denials) note(c call, err syscall.Errno) {
	if d.errors[c].CompareAndSwap(0, uintptr(err)) {
		d.log.Warn("the system denies a call", "call", c.String(), "error", err, "instead", callTexts[c].instead)
	}
}

// list returns those that are denied.
func (d *denials) list() (all []Denied) {
	for c := range calls {
		if err := d.errors[c].Load(); err != 0 {
			all = append(all, Denied{Call: c.String(), Error: syscall.Errno(err).Error(),
				Instead: callTexts[c].instead})
		}
	}
	return all
}

// Denied returns the system calls and socket options that the system denies this process, as far as that is known.
// Nil: none.
func (p *Proxier) Denied() []Denied { return p.denied.list() }
