package proxy

import (
	"sync/atomic"
	"syscall"
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

// callNames are the names that manual pages have for the calls.
var callNames = [calls]string{
	callSplice:       "splice",
	callPipe:         "pipe2",
	callPipeSize:     "F_SETPIPE_SZ",
	callRoom:         "SO_MEMINFO",
	callWritable:     "ppoll",
	callUnsent:       "SIOCOUTQ",
	callRecvmmsg:     "recvmmsg",
	callRecvmsg:      "recvmsg",
	callSendmmsg:     "sendmmsg",
	callSendmsg:      "sendmsg",
	callJoin:         "UDP_GRO",
	callCut:          "UDP_SEGMENT",
	callAccept:       "accept4",
	callExclusive:    "EPOLLEXCLUSIVE",
	callSharePort:    "SO_REUSEPORT",
	callReuseAddr:    "SO_REUSEADDR",
	callLocalAddr:    "IP_PKTINFO",
	callHopsLeft:     "IP_RECVTTL",
	callHops:         "IP_TTL",
	callHopsMessage:  "IP_TTL of a datagram",
	callLinger:       "SO_LINGER",
	callNoDelay:      "TCP_NODELAY",
	callKeepAlive:    "SO_KEEPALIVE",
	callUrgentInline: "SO_OOBINLINE",
	callOnlyIPv6:     "IPV6_V6ONLY",
	callBuffers:      "SO_RCVBUF",
}

// String returns the call's name.
func (c call) String() string { return callNames[c] }

// denials are the calls that the system denies this process. A call that was denied once, when it was tried or at a
// later use, counts as denied for good. The zero value is ready for use: nothing is denied. All methods may be called
// concurrently.
type denials struct {
	noted  func(c call, err syscall.Errno) // is told of each denied call, once; may be nil
	errors [calls]atomic.Uintptr           // the error of each that is denied; zero for the others
}

// has reports whether c is denied.
func (d *denials) has(c call) bool { return d.errors[c].Load() != 0 }

// error returns the error that c had when it was denied first. It is zero if c is not denied.
func (d *denials) error(c call) syscall.Errno { return syscall.Errno(d.errors[c].Load()) }

// note notes that c is denied. It calls noted unless that was known.
func (d *denials) note(c call, err syscall.Errno) {
	if d.errors[c].CompareAndSwap(0, uintptr(err)) && d.noted != nil {
		d.noted(c, err)
	}
}
