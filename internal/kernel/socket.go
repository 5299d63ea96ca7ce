package kernel

import (
	"net/netip"
	"time"
)

// A Socket is a socket of a client that the kernel path has sent to an endpoint. A UDP socket that is not connected is
// one Socket for each service to which it sends.
type Socket struct {
	ID      uint64 // identifies the socket for as long as the host runs
	Service string
	UDP     bool
	Key     uint64 // of the endpoint

	Client   netip.AddrPort // address of the socket; its IP address may be unspecified if the socket is not connected
	Listener netip.AddrPort // where the client wanted to connect or send
	Endpoint netip.AddrPort
	State    SocketState

	PID     uint32 // of the process that connected the socket, in the PID namespace of the host
	Program string // name of the thread that did, of at most 15 bytes; empty without CAP_PERFMON

	Age  time.Duration // since the client connected, or sent its first datagram
	Idle time.Duration // since bytes last moved; zero for a connected UDP socket, of which it is not known

	// Sent and Received count the bytes that the client has sent, and the endpoint acknowledged, and that the client
	// has received. For UDP they are zero, because they are not known.
	Sent, Received uint64
}

// SocketState is the stage of a Socket.
type SocketState int

// The states of a Socket. A UDP socket is always open.
const (
	SocketConnecting SocketState = 1 + iota // the endpoint has not accepted the connection yet
	SocketOpen                              // bytes can move in both directions
	SocketHalfClosed                        // one side has ended, the other side goes on
	SocketClosing                           // both sides have ended; last bytes are on their way
)
