package testproc

import (
	"fmt"
	"math/rand/v2"
	"sync"
)

// The ports for tests are below the ports that systems choose for outgoing connections, so no connection takes one of
// them. Each test process takes its ports from a block of its own.
const (
	firstPort = 2000
	blockSize = 2000 // so large that the tests of one package do not ask for the same port twice
	blocks    = 15
	skipped   = 3 // the block with the default ports of Consul and Lictor, 8000 to 9999
)

// ports are the ports of this process. The block is taken when the process starts, so that tests which count
// descriptors do not see its socket appear.
var ports = struct {
	sync.Mutex
	block int // first port of this process's block
	next  int // offset of the next port in the block
}{block: firstPort + blockSize*takeBlock("lictor-test-ports")}

// FreePort returns a port for which free returns true. free reports whether the port can be used now, for example by
// opening it for a moment. Until a process has used up its block of ports, FreePort never returns a port again, so a
// test may open its port later, or close it and open it again. Other test processes of this host take ports from other
// blocks; only on Linux that is certain. FreePort returns an error if no port is free. Safe for concurrent use.
func FreePort(free func(port int) bool) (int, error) {
	ports.Lock()
	defer ports.Unlock()
	for range blockSize {
		port := ports.block + ports.next
		ports.next = (ports.next + 1) % blockSize
		if free(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port from %d to %d", ports.block, ports.block+blockSize-1)
}

// takeBlock returns the number of a block that no other test process has taken under this name. If all are taken, the
// block is any.
func takeBlock(name string) int {
	order := rand.Perm(blocks)
	for _, n := range order {
		if n != skipped && reserve(fmt.Sprintf("%s-%d", name, n)) {
			return n
		}
	}
	if order[0] == skipped {
		return order[1]
	}
	return order[0]
}
