package sys

import (
	"math"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This is what the kernel tells of the state of a TCP socket, by its descriptor.

// Gone reports whether the connection is over for the kernel: reset, or given up. A peer that has only finished
// sending leaves it open.
func Gone(fd int) bool {
	info, err := tcpInfo(fd)
	return err == nil && info.State == unix.BPF_TCP_CLOSE
}

// Unsent returns how many bytes written to a socket its peer has not acknowledged. It is 0 for a negative fd. If the
// system does not tell, it is 1.
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
		return 0 // a connection that is over delivers nothing any more
	case err == 0:
		return n
	case infoErr == nil:
		return int(info.Notsent_bytes) + int(info.Unacked*info.Snd_mss)
	}
	return 1
}

// Unanswered returns for how long the peer of a TCP socket has acknowledged nothing, if bytes or probes were sent to it
// at least twice in that time. Zero: it answers, nothing is on its way, fd is negative, or the system does not tell. A
// peer that is well answers the probes of a window that is closed.
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

// queuedIn returns how many bytes written to a socket its send buffer still has.
func queuedIn(fd int) (int, syscall.Errno) {
	var n int32
	err := faultDenied(CallUnsent)
	if err == 0 {
		_, _, err = unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	}
	return int(n), err
}

// HasBytes reports whether there is something to read from a socket. Its end and an error are nothing.
func HasBytes(fd int) bool {
	n, err := Peek(fd)
	return err == nil && n > 0
}

const (
	// leastRoom is what a writable socket takes: the kernel looks at the send buffer only when it begins a segment,
	// which grows to this.
	leastRoom = 64 << 10

	// unknownRoom is the room in a socket of which the system does not tell it.
	unknownRoom = math.MaxInt32
)

// Places in what SO_MEMINFO returns: enum of linux/sock_diag.h.
const (
	memoryLimit  = 3 // SK_MEMINFO_SNDBUF
	memoryQueued = 5 // SK_MEMINFO_WMEM_QUEUED
	memoryDrops  = 8 // SK_MEMINFO_DROPS
	memoryPlaces = 9
)

// sendMemory returns how much memory the kernel uses for a socket, how much it may use, and what it has dropped.
func sendMemory(fd int) (memory [memoryPlaces]uint32, err syscall.Errno) {
	if err = faultDenied(CallRoom); err == 0 {
		err = getOption(fd, unix.SOL_SOCKET, unix.SO_MEMINFO, unsafe.Pointer(&memory), unsafe.Sizeof(memory))
	}
	return memory, err
}

// Room returns how many bytes a socket takes now without waiting. It is 0 if the kernel does not call the socket
// writable, which takes a third of its send buffer; then epoll tells when it is. It is unknownRoom if the system
// does not tell.
func Room(fd int) int {
	memory, err := sendMemory(fd)
	if err != 0 {
		return unknownRoom
	}
	queued := int(memory[memoryQueued])
	free := int(memory[memoryLimit]) - queued
	if least := queued / 2; free < least {
		if !pollWritable(fd) {
			return 0
		}
		free = least // there is room since a moment ago
	}
	// The kernel counts the memory that it takes to hold the bytes. To a peer that takes small segments that may be
	// several times as much.
	if unsent, err := queuedIn(fd); err == 0 && unsent > 0 && unsent < queued {
		free = free * unsent / queued
	}
	return max(free, leastRoom)
}

// pollWritable reports whether the kernel calls a socket writable, or does not say. If it is not, the kernel tells
// when it becomes so, to an edge-triggered epoll too, as it does after a write that found no room.
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
