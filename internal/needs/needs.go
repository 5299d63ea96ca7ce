// Package needs ends a program that cannot work here with an error that says why: the system denies what every Go
// program needs for the network. It is imported for that alone:
//
//	import _ "github.com/lictor-proxy/lictor/internal/needs"
//
// It looks while it is initialised. That main looks would be too late: other packages open files when they are
// initialised, which has the runtime start its network poller, and that ends the program with a stack trace. Go
// initialises the packages that are ready in the order of their import paths. So this one imports nothing but syscall:
// then it is ready before all that open files.
package needs
