package proxy

import "time"

// This file has the TCP constants that both engines share.

// bufferSize is the most bytes that are moved by read and write. A smaller message is cheaper to copy twice than to
// splice twice. What comes from a Unix socket is always moved by read and write: a splice from one gives the
// destination single pages, and that costs half as much again as copying does (Linux 6.18, to TCP). A splice to a Unix
// socket costs less than half of copying.
const bufferSize = 16 << 10

// The sides of a connection or a session.
const (
	clientSide = 0
	serverSide = 1
)

// deliverTimeout bounds the wait of deliver.
const deliverTimeout = time.Second
