package sys

import (
	"sync/atomic"
	"syscall"
)

// A Call is a system call or a socket option that an engine prefers but can work without. Sandboxes, seccomp filters,
// old kernels and systems that imitate Linux deny some of them.
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
	NumCalls // number of calls
)

// callNames holds the names of the calls as manual pages spell them.
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

// Denials records the calls that the system denies this process. Once a call was denied, in a trial or in use, it
// counts as denied for good. In the zero value nothing is denied. All methods may be called concurrently.
type Denials struct {
	OnDenial func(c Call, err syscall.Errno) // called once for each call that is found denied; may be nil
	errors   [NumCalls]atomic.Uintptr        // the error of each denied call; zero if the call is not denied

	unprivileged atomic.Bool // whether the kernel refuses buffers beyond its limits
}

// Has reports whether c is denied.
func (d *Denials) Has(c Call) bool { return d.errors[c].Load() != 0 }

// Err returns the error of the first denial of c. Err returns zero if c is not denied.
func (d *Denials) Err(c Call) syscall.Errno { return syscall.Errno(d.errors[c].Load()) }

// Note records that c is denied. Note calls OnDenial if c was not recorded before.
func (d *Denials) Note(c Call, err syscall.Errno) {
	if d.errors[c].CompareAndSwap(0, uintptr(err)) && d.OnDenial != nil {
		d.OnDenial(c, err)
	}
}
