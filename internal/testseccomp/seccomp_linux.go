package testseccomp

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

const (
	// command is the first argument of this program if Wrapper makes it run another program.
	command = "-seccomp-exec"

	// variable is the environment variable with the name of the test for which a process runs.
	variable = "LICTOR_TEST_UNDER_SECCOMP"

	// exitNoFilter is the exit code if a filter cannot be installed.
	exitNoFilter = 125
)

// Wrapper returns arguments to put before a program and its arguments. The program and its children then get the error
// denied for each of the given system calls, which are numbers.
func Wrapper(denied syscall.Errno, calls ...int) []string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	w := []string{self, command, strconv.Itoa(int(denied))}
	for _, c := range calls {
		w = append(w, strconv.Itoa(c))
	}
	return append(w, "--")
}

// Main runs the program that Wrapper's arguments name, and does not return. Without such arguments it does nothing.
func Main() {
	if len(os.Args) < 2 || os.Args[1] != command {
		return
	}
	if err := execUnder(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "testseccomp:", err)
		os.Exit(exitNoFilter)
	}
}

// Under runs the rest of the calling test in another process of this program, where the given system calls return the
// error denied. Under returns true only in that process. Without seccomp filters the test is skipped, or fails in CI.
func Under(t *testing.T, denied syscall.Errno, calls ...int) bool {
	t.Helper()
	if os.Getenv(variable) == t.Name() {
		return true
	}
	pattern := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	w := append(Wrapper(denied, calls...), os.Args[0], "-test.run", pattern, "-test.v", "-test.count",
		"1", "-test.timeout", "5m")
	cmd := exec.Command(w[0], w[1:]...)
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitNoFilter {
		testproc.Cannot(t, "there can be no seccomp filter", errors.New(string(out)))
	}
	switch text := string(out); {
	case strings.Contains(text, "--- SKIP: "+t.Name()):
		t.Skipf("under the filter:\n%s", text)
	case err != nil || !strings.Contains(text, "--- PASS: "+t.Name()):
		t.Fatalf("under the filter: %v\n%s", err, text)
	}
	return false
}

// execUnder replaces this program by another one under a filter. The args are the error, the system calls, "--", and
// the program with its arguments.
func execUnder(args []string) error {
	runtime.LockOSThread() // the filter belongs to the thread, which becomes the new program
	var numbers []uint32
	for len(args) > 0 && args[0] != "--" {
		n, err := strconv.ParseUint(args[0], 10, 32)
		if err != nil {
			return err
		}
		numbers, args = append(numbers, uint32(n)), args[1:]
	}
	if len(numbers) < 1 || len(args) < 2 {
		return errors.New("usage: ERRNO [CALL]... -- PROGRAM [ARGUMENT]")
	}
	program, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	if err := install(numbers[0], numbers[1:]); err != nil {
		return err
	}
	return syscall.Exec(program, args[1:], os.Environ())
}

// install installs a filter for this thread and everything that it executes.
func install(errno uint32, calls []uint32) error {
	const numberOffset = 0 // offset of nr in struct seccomp_data
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: numberOffset}}
	for _, c := range calls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: c},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	_, _, err := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if err != 0 {
		return os.NewSyscallError("seccomp", err)
	}
	return nil
}
