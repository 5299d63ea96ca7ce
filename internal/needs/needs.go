// Package needs checks that the system allows the calls that every Go program needs for the network. If a call is
// denied, it ends the program with an error that names the call. The package is imported only for this effect:
//
//	import _ "github.com/lictor-proxy/lictor/internal/needs"
//
// The check runs when the package is initialised, because main would be too late. Other packages open files when they
// are initialised. Opening a file starts the runtime's network poller, which ends the program with a stack trace if a
// call is denied. Go initialises packages that are ready in the order of their import paths. This package imports only
// syscall, so it is initialised before all packages that open files.
package needs
