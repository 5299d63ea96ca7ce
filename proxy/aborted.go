package proxy

import "syscall"

// errAborted is what accept says of a client that gave up before it was accepted.
const errAborted = syscall.ECONNABORTED
