// Package sys makes the system calls of the proxy.
//
// The calls that a loop makes for each message do not allocate and do not inform the Go scheduler. EpollWait informs
// the scheduler only when it waits.
//
// A loop that moves bytes between two non-blocking sockets passes their descriptors:
//
//	n, err := sys.RecvStream(client, buf)
//	switch {
//	case err == unix.EAGAIN: // no bytes have arrived; wait for epoll
//	case err != 0: // the connection is broken
//	case n == 0: // the peer has finished sending
//	default:
//		n, err = sys.SendStream(server, buf[:n])
//	}
//
// The calls return errno(3) numbers; zero means success. A call that a signal interrupts is repeated.
//
// Sandboxes and old kernels deny some of these calls. A program tries the calls that it prefers once, and asks before
// each use whether a call is denied:
//
//	denied := &sys.Denials{OnDenial: warn}
//	denied.Try([]sys.Call{sys.CallSplice, sys.CallPipe})
//	if denied.Has(sys.CallSplice) {
//		// copy by RecvStream and SendStream
//	}
//
// The methods Accept, Receive and Send of Denials use another call by themselves if the preferred call is denied.
//
// With the build tag faults, calls misbehave at random in ways that the kernel permits but rarely shows, and tests can
// deny calls; see faults_linux.go. Without the tag, fault injection costs nothing.
//
// Most of the package is for Linux. On other systems the package knows only the names of the calls, and its functions
// report that the answer is unknown.
package sys
