package proxy

import "time"

// These constants of TCP are the same for both engines.

// bufferSize is how much a message may have to go by read and write: below it, two copies are cheaper than two splices.
const bufferSize = 16 << 10

// The sides of a connection or a session.
const (
	clientSide = 0
	serverSide = 1
)

// deliverTimeout bounds the wait of deliver.
const deliverTimeout = time.Second
