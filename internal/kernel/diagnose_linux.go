//go:build amd64 || arm64

package kernel

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// diagnose says what the system lacks if doing something has failed with err.
func diagnose(doing string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) && !errors.As(err, new(*ebpf.VerifierError)):
		if missing := missingCapabilities(); missing != "" {
			return &Error{Reason: NoCapability, Detail: "cannot " + doing + " without " + missing}
		}
		return &Error{Reason: Denied, Err: err, Detail: "cannot " + doing + " although the capabilities are there: " +
			"the process is in a user namespace, or a seccomp filter, a security module or the kernel's lockdown " +
			"forbids bpf(2), or another program is attached exclusively"}
	case errors.Is(err, unix.ENOSYS):
		return &Error{Reason: NoSupport, Detail: "the kernel has no bpf(2): CONFIG_BPF_SYSCALL is missing", Err: err}
	case errors.Is(err, unix.ENOPROTOOPT):
		return &Error{Reason: NoSupport, Err: err,
			Detail: "the kernel is too old: it has no SO_NETNS_COOKIE (Linux 5.14)"}
	}
	for _, each := range []struct {
		kind ebpf.ProgramType
		name string
	}{{ebpf.CGroupSockAddr, "cgroup/connect4"}, {ebpf.SockOps, "sockops"}} {
		if errors.Is(features.HaveProgramType(each.kind), ebpf.ErrNotSupported) {
			return &Error{Reason: NoSupport, Err: err,
				Detail: "the kernel has no eBPF programs of type " + each.name + ": CONFIG_CGROUP_BPF is missing"}
		}
	}
	if _, btfErr := btf.LoadKernelSpec(); btfErr != nil {
		return &Error{Reason: NoSupport, Err: btfErr,
			Detail: "the kernel does not describe its types: CONFIG_DEBUG_INFO_BTF is missing"}
	}
	return &Error{Reason: NoSupport, Err: err,
		Detail: "cannot " + doing + "; the kernel may be older than Linux " + oldestKernel(runtime.GOARCH)}
}

// oldestKernel returns the oldest version of Linux that can run the programs for connections and datagrams. On arm64,
// earlier versions have no atomic operations that return a value.
func oldestKernel(arch string) string {
	if arch == "arm64" {
		return "5.18"
	}
	return "5.15"
}

// diagnoseCutter says what the system lacks if the programs that destroy sockets cannot be used.
func diagnoseCutter(err error) error {
	const doing = "cannot destroy sockets on the kernel path"
	if !hasCapability(unix.CAP_PERFMON) {
		return &Error{Reason: NoCapability, Detail: doing + " without CAP_PERFMON"}
	}
	types, typesErr := btf.LoadKernelSpec()
	if typesErr != nil {
		return &Error{Reason: NoSupport, Err: typesErr, Detail: doing +
			": the kernel does not describe its types, CONFIG_DEBUG_INFO_BTF is missing"}
	}
	has := func(function string) bool {
		var f *btf.Func
		return types.TypeByName(function, &f) == nil
	}
	if missing := missingForCutter(has); missing != "" {
		return &Error{Reason: NoSupport, Err: err, Detail: doing + ": the kernel has no " + missing}
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) && !errors.As(err, new(*ebpf.VerifierError)) {
		return &Error{Reason: Denied, Err: err, Detail: doing + " although CAP_PERFMON is there: a seccomp filter, a " +
			"security module or the kernel's lockdown forbids it"}
	}
	return &Error{Reason: NoSupport, Err: err, Detail: doing}
}

// missingForCutter names a function that the programs that destroy sockets need and the kernel lacks, and says where it
// comes from. It returns "" if all are there. has reports whether the kernel has a function.
func missingForCutter(has func(function string) bool) string {
	for _, each := range []struct{ function, from string }{
		{"bpf_iter_tcp", "CONFIG_PROC_FS"}, // see net/ipv4/tcp_ipv4.c
		{"bpf_iter_udp", "CONFIG_PROC_FS"},
		{"bpf_sock_destroy", "Linux 6.5; CONFIG_INET_DIAG_DESTROY would do, too"},
	} {
		if !has(each.function) {
			return each.function + " (" + each.from + ")"
		}
	}
	return ""
}

// hasCapability reports whether the process has a capability or CAP_SYS_ADMIN, which includes those for eBPF.
func hasCapability(c int) bool {
	held, err := capabilities()
	return err == nil && held&(1<<c|1<<unix.CAP_SYS_ADMIN) != 0
}

// missingCapabilities names what the programs need and the process lacks, or is empty.
func missingCapabilities() string {
	var missing []string
	for _, each := range []struct {
		capability int
		name       string
	}{{unix.CAP_BPF, "CAP_BPF"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}} {
		if !hasCapability(each.capability) {
			missing = append(missing, each.name)
		}
	}
	return strings.Join(missing, " and ")
}

// capabilities returns the effective capabilities, one bit each.
func capabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read the capabilities: %w", os.NewSyscallError("capget", err))
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}
