package proxy

// loopCalls are the calls that the loops use; recvmsg and sendmsg only if they have to.
var loopCalls = []call{
	callSplice, callPipe, callRoom, callWritable, callUnsent, callRecvmmsg, callSendmmsg, callJoin, callCut, callAccept,
	callExclusive, callSharePort, callReuseAddr, callLocalAddr, callHopsLeft, callHops, callLinger, callNoDelay,
	callKeepAlive, callUrgentInline, callOnlyIPv6, callBuffers,
}

// tryLoopCalls notes in d which of the calls that the loops use are denied.
func tryLoopCalls(d *denials) {
	d.try(loopCalls)
	if d.has(callRecvmmsg) {
		d.try([]call{callRecvmsg})
	}
	if d.has(callSendmmsg) {
		d.try([]call{callSendmsg})
	}
}
