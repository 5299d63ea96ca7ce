package proxy

import "time"

// This file has the UDP constants that both engines share.

// maxDatagram holds the largest UDP payload: 65,507 bytes over IPv4 and 65,527 over IPv6 without jumbograms (RFC 768,
// RFC 8200).
const maxDatagram = 65535

// maxPayload is the largest UDP payload in bytes that can be sent to all endpoints, see maxDatagram.
const maxPayload = 65507

// socketBuffer is the receive buffer that Lictor requests for each listener and for the socket of each session. A
// listener receives the bursts of all clients. The kernel may give less (net.core.rmem_max).
const socketBuffer = 4 << 20

// maxQueue is how many datagrams of a session may wait for the lookup of a host name.
const maxQueue = 16

// drainQuiet is how long a session must have been quiet to count as finished when its listener shuts down.
const drainQuiet = 250 * time.Millisecond
