package daemon

import "golang.org/x/sys/unix"

// forbidDumps keeps core dumps from being made of this process, and of its successors. The kernel writes no file that
// would be longer than the limit, and with a limit of one byte it does not start the program that core_pattern names
// either (fs/coredump.c).
func forbidDumps() error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
		return err
	}
	l.Cur = min(1, l.Max)
	return unix.Setrlimit(unix.RLIMIT_CORE, &l)
}
