package sys

import (
	"math"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file asks the kernel for the state of a stream socket, which it takes as a descriptor. For a Unix socket, Gone
// returns false and Unanswered returns zero. Bytes to a Unix socket count as unsent until its peer has read them.

// Gone reports whether the kernel has ended the connection, after a reset or a timeout. A peer that has only finished
// sending leaves the connection open.
func Gone(fd int) bool {
	info, err := tcpInfo(fd)
	return err == nil && info.State == unix.BPF_TCP_CLOSE
}

// Unsent returns the number of bytes written to a socket that its peer has not acknowledged. Unsent returns 0 if fd is
// negative, and 1 if the system does not provide the number.
func Unsent(fd int) int {
	if fd < 0 {
		return 0
	}
	n, err := queuedIn(fd)
	if err == 0 && n == 0 {
		return 0
	}
	info, infoErr := tcpInfo(fd)
	switch {
	case infoErr == nil && info.State == unix.BPF_TCP_CLOSE:
		return 0 // a connection that has ended sends nothing more
	case err == 0:
		return n
	case infoErr == nil:
		return int(info.Notsent_bytes) + int(info.Unacked*info.Snd_mss)
	}
	return 1
}

// Unanswered returns how long the peer of a TCP socket has acknowledged nothing, if bytes or probes were sent at least
// twice meanwhile. Unanswered returns zero if the peer answers, nothing is unacknowledged, fd is negative, or the
// system does not provide the time. A healthy peer answers the probes of a closed window.
func Unanswered(fd int) time.Duration {
	if fd < 0 {
		return 0
	}
	info, err := tcpInfo(fd)
	if err != nil || info.State == unix.BPF_TCP_CLOSE || info.Retransmits < 2 && info.Probes < 2 {
		return 0
	}
	return time.Duration(info.Last_ack_recv) * time.Millisecond
}

func tcpInfo(fd int) (*unix.TCPInfo, error) {
	return unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
}

// queuedIn returns the number of written bytes that are still in the send buffer of a socket.
func queuedIn(fd int) (int, syscall.Errno) {
	var n int32
	err := faultDenied(CallUnsent)
	if err == 0 {
		_, _, err = unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	}
	return int(n), err
}

// HasBytes reports whether a socket has bytes to read. The end of the stream and an error do not count.
func HasBytes(fd int) bool {
	n, err := Peek(fd)
	return err == nil && n > 0
}

const (
	// leastRoom is the number of bytes that a writable socket accepts. The kernel checks the send buffer only when it
	// begins a segment, and a segment grows to this size.
	leastRoom = 64 << 10

	// unknownRoom is the free space to assume for a socket if the system does not provide it.
	unknownRoom = math.MaxInt32
)

// Indexes into the array that SO_MEMINFO returns: the enum in linux/sock_diag.h.
const (
	memoryInFlight = 2 // SK_MEMINFO_WMEM_ALLOC
	memoryLimit    = 3 // SK_MEMINFO_SNDBUF
	memoryQueued   = 5 // SK_MEMINFO_WMEM_QUEUED
	memoryDrops    = 8 // SK_MEMINFO_DROPS
	memoryPlaces   = 9
)

// sendMemory returns the array of SO_MEMINFO: memory used by a socket, its limits, and the number of drops.
func sendMemory(fd int) (memory [memoryPlaces]uint32, err syscall.Errno) {
	if err = faultDenied(CallRoom); err == 0 {
		err = getOption(fd, unix.SOL_SOCKET, unix.SO_MEMINFO, unsafe.Pointer(&memory), unsafe.Sizeof(memory))
	}
	return memory, err
}

// Room returns how many bytes a socket accepts now without waiting. Room returns 0 if the kernel does not call the
// socket writable, for which a third of the send buffer must be free. After a 0, epoll reports when the socket becomes
// writable. Room returns unknownRoom if the system does not provide the figures.
func Room(fd int) int {
	memory, err := sendMemory(fd)
	if err != 0 {
		return unknownRoom
	}
	// A Unix socket has no queue of its own: what its peer has not read counts as in flight. What a TCP socket has in
	// flight is part of its queue.
	queued := int(max(memory[memoryQueued], memory[memoryInFlight]))
	free := int(memory[memoryLimit]) - queued
	if least := queued / 2; free < least {
		if !pollWritable(fd) {
			return 0
		}
		free = least // the socket has become writable since sendMemory read the figures
	}
	// SO_MEMINFO counts memory, not bytes. For a peer that receives small segments, the memory may be several times the
	// number of bytes.
	if unsent, err := queuedIn(fd); err == 0 && unsent > 0 && unsent < queued {
		free = free * unsent / queued
	}
	return max(free, leastRoom)
}

// pollWritable reports whether the kernel calls a socket writable, or whether that is unknown. If the socket is not
// writable, even an edge-triggered epoll reports when it becomes writable, as after a write that found a full buffer.
func pollWritable(fd int) bool {
	writable, err := pollNow(fd)
	return err != 0 || writable
}

func pollNow(fd int) (writable bool, err syscall.Errno) {
	if err = faultDenied(CallWritable); err != 0 {
		return false, err
	}
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}
	var now unix.Timespec
	n, _, err := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0,
		0)
	return n != 0, err
}
