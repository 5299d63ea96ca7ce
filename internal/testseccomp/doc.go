// Package testseccomp runs tests, and programs that tests start, where system calls are denied: on Linux, under a
// seccomp filter, for which no privileges are needed. A test package that uses it calls [Main] first in its
// TestMain.
package testseccomp
