package proxy

import "time"

// This file has the TCP constants that both engines share.

// bufferSize is the most bytes that are moved by read and write. A smaller message is cheaper to copy twice than to
// splice twice. The ends may be TCP or Unix sockets.
const bufferSize = 16 << 10

// The sides of a connection or a session.
const (
	clientSide = 0
	serverSide = 1
)

// deliverTimeout bounds the wait of deliver.
const deliverTimeout = time.Second
