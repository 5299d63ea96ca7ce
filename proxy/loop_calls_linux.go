package proxy

import "github.com/lictor-proxy/lictor/proxy/internal/sys"

// loopCalls are the calls that the loops use; recvmsg and sendmsg only if they have to.
var loopCalls = []sys.Call{
	sys.CallSplice, sys.CallPipe, sys.CallRoom, sys.CallWritable, sys.CallUnsent, sys.CallRecvmmsg, sys.CallSendmmsg,
	sys.CallJoin, sys.CallCut, sys.CallAccept, sys.CallExclusive, sys.CallSharePort, sys.CallReuseAddr,
	sys.CallLocalAddr, sys.CallHopsLeft, sys.CallHops, sys.CallLinger, sys.CallNoDelay, sys.CallKeepAlive,
	sys.CallUrgentInline, sys.CallOnlyIPv6, sys.CallBuffers,
}

// tryLoopCalls notes in d which of the calls that the loops use are denied.
func tryLoopCalls(d *sys.Denials) {
	d.Try(loopCalls)
	if d.Has(sys.CallRecvmmsg) {
		d.Try([]sys.Call{sys.CallRecvmsg})
	}
	if d.Has(sys.CallSendmmsg) {
		d.Try([]sys.Call{sys.CallSendmsg})
	}
}
