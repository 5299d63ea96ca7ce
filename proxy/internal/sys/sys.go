// Package sys makes the system calls of a proxy.
//
// The calls that a loop makes for each message do not allocate, and do not tell the Go scheduler; EpollWait tells it
// when it waits.
//
// A loop that moves bytes between two sockets that do not block calls them by their descriptors:
//
//	n, err := sys.RecvStream(client, buf)
//	switch {
//	case err == unix.EAGAIN: // nothing has come; wait for epoll
//	case err != 0: // the connection is broken
//	case n == 0: // the peer has ended its side
//	default:
//		n, err = sys.SendStream(server, buf[:n])
//	}
//
// Errors are the numbers of errno(3), zero for none. A call that a signal interrupts is made again.
//
// Sandboxes and old kernels deny some of these calls. A program lists those that it prefers, tries them once, and asks
// before each use:
//
//	denied := &sys.Denials{OnDenial: warn}
//	denied.Try([]sys.Call{sys.CallSplice, sys.CallPipe})
//	if denied.Has(sys.CallSplice) {
//		// copy by RecvStream and SendStream
//	}
//
// Where there is one way round, the methods of Denials take it by themselves: Accept, Receive, Send.
//
// With the build tag faults, calls misbehave at random as the kernel may and seldom does, and tests can deny calls; see
// faults_linux.go. Without the tag this costs nothing.
//
// Most of the package is for Linux. On other systems it knows the names of the calls and says of what it is asked that
// it is not known.
package sys
