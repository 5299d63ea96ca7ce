package proxy

import "time"

// These constants of UDP are the same for both engines.

// maxDatagram holds the largest UDP payload, 65,507 bytes over IPv4 and 65,527 over IPv6 without jumbograms (RFC
// 768, RFC 8200).
const maxDatagram = 65535

// socketBuffer is asked for on the listener, which takes the bursts of all clients, and for the answers on the socket
// of each session. The kernel may give less (net.core.rmem_max).
const socketBuffer = 4 << 20

// maxQueue is how many datagrams may wait for a host name.
const maxQueue = 16

// drainQuiet is how long a session must have been quiet to count as finished when its listener shuts down.
const drainQuiet = 250 * time.Millisecond
