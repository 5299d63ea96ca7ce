package sys

import (
	"sync/atomic"
	"syscall"
)

// A Call is a system call or a socket option that an engine prefers, and that it can do without. Sandboxes and
// seccomp filters deny some of them, and so do old kernels and systems that imitate Linux.
type Call int

const (
	CallSplice Call = iota
	CallPipe
	CallPipeSize
	CallRoom
	CallWritable
	CallUnsent
	CallRecvmmsg
	CallRecvmsg
	CallSendmmsg
	CallSendmsg
	CallJoin
	CallCut
	CallAccept
	CallExclusive
	CallSharePort
	CallReuseAddr
	CallLocalAddr
	CallHopsLeft
	CallHops
	CallHopsMessage
	CallLinger
	CallNoDelay
	CallKeepAlive
	CallUrgentInline
	CallOnlyIPv6
	CallBuffers
	NumCalls // how many there are
)

// callNames are the names that manual pages have for the calls.
var callNames = [NumCalls]string{
	CallSplice:       "splice",
	CallPipe:         "pipe2",
	CallPipeSize:     "F_SETPIPE_SZ",
	CallRoom:         "SO_MEMINFO",
	CallWritable:     "ppoll",
	CallUnsent:       "SIOCOUTQ",
	CallRecvmmsg:     "recvmmsg",
	CallRecvmsg:      "recvmsg",
	CallSendmmsg:     "sendmmsg",
	CallSendmsg:      "sendmsg",
	CallJoin:         "UDP_GRO",
	CallCut:          "UDP_SEGMENT",
	CallAccept:       "accept4",
	CallExclusive:    "EPOLLEXCLUSIVE",
	CallSharePort:    "SO_REUSEPORT",
	CallReuseAddr:    "SO_REUSEADDR",
	CallLocalAddr:    "IP_PKTINFO",
	CallHopsLeft:     "IP_RECVTTL",
	CallHops:         "IP_TTL",
	CallHopsMessage:  "IP_TTL of a datagram",
	CallLinger:       "SO_LINGER",
	CallNoDelay:      "TCP_NODELAY",
	CallKeepAlive:    "SO_KEEPALIVE",
	CallUrgentInline: "SO_OOBINLINE",
	CallOnlyIPv6:     "IPV6_V6ONLY",
	CallBuffers:      "SO_RCVBUF",
}

// String returns the call's name.
func (c Call) String() string { return callNames[c] }

// Denials are the calls that the system denies this process. A call that was denied once, when it was tried or at a
// later use, counts as denied for good. The zero value is ready for use: nothing is denied. All methods may be called
// concurrently.
type Denials struct {
	OnDenial func(c Call, err syscall.Errno) // is called once for each denied call; may be nil
	errors   [NumCalls]atomic.Uintptr        // the error of each that is denied; zero for the others

	unprivileged atomic.Bool // the process may not exceed the system's limits of buffers
}

// Has reports whether c is denied.
func (d *Denials) Has(c Call) bool { return d.errors[c].Load() != 0 }

// Err returns the error that c had when it was denied first. It is zero if c is not denied.
func (d *Denials) Err(c Call) syscall.Errno { return syscall.Errno(d.errors[c].Load()) }

// Note notes that c is denied. It calls OnDenial if that is news.
func (d *Denials) Note(c Call, err syscall.Errno) {
	if d.errors[c].CompareAndSwap(0, uintptr(err)) && d.OnDenial != nil {
		d.OnDenial(c, err)
	}
}
