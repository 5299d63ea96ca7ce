// Package testseccomp runs tests, and programs that tests start, with some system calls denied. On Linux it uses a
// seccomp filter, which needs no privileges. A test package that uses it must call [Main] first in its TestMain.
package testseccomp
