package proxy

import "syscall"

// errAborted is the error of accept for a client that has closed its connection before it was accepted.
const errAborted = syscall.ECONNABORTED
