//go:build amd64 || arm64

package kernel

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// mountTable has the mounts that this process sees, see proc_pid_mountinfo(5).
const mountTable = "/proc/self/mountinfo"

// findCgroup returns the directory of a control group; see Options.Cgroup.
func findCgroup(group string) (string, error) {
	mounts, err := os.ReadFile(mountTable)
	if err != nil {
		return "", &Error{Reason: NoCgroup, Detail: "the mounts of this host are not known", Err: err}
	}
	root := cgroupMount(string(mounts))
	if root == "" {
		return "", &Error{Reason: NoCgroup, Detail: "no cgroup2 hierarchy is mounted; the kernel path needs one, " +
			"for example by `mount -t cgroup2 none /sys/fs/cgroup`"}
	}
	group = filepath.Clean("/" + group)
	if root != "/" && includes(root, group) { // the whole path of its directory
		group = filepath.Clean("/" + strings.TrimPrefix(group, root))
	}
	if group == "/" {
		return root, mustBeRoot(root)
	}
	dir := filepath.Join(root, group)
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		return "", &Error{Reason: NoCgroup, Detail: "there is no control group " + group + " below " + root, Err: err}
	}
	return dir, nil
}

// ownCgroup returns the directory of this process's control group, or "" if this process does not see it.
func ownCgroup() string {
	mounts, _ := os.ReadFile(mountTable)
	groups, _ := os.ReadFile("/proc/self/cgroup")
	root := cgroupMount(string(mounts))
	for line := range strings.Lines(string(groups)) {
		group, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if ok && root != "" && filepath.Clean(group) == group { // a group elsewhere has a name such as /../..
			return filepath.Join(root, group)
		}
	}
	return ""
}

// includes reports whether the control group at dir is the group at other, or one above it.
func includes(dir, other string) bool {
	return other == dir || strings.HasPrefix(other, strings.TrimSuffix(dir, "/")+"/")
}

// mustBeRoot returns an error if dir is not the root of the whole hierarchy, as in a container that has a cgroup
// namespace of its own. Only the root has no file cgroup.type, see cgroups(7).
func mustBeRoot(dir string) error {
	_, err := os.Stat(filepath.Join(dir, "cgroup.type"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return &Error{Reason: PrivateRoot, Err: err, Detail: dir + " is only a part of the cgroup2 hierarchy, so most " +
		"clients on this host would not use the kernel path; run with the cgroup namespace of the host, or name a " +
		"control group"}
}

// cgroupMount returns the directory at which the root of the cgroup2 hierarchy is mounted, or "" if it is not. Of
// several mounts, the last one counts, because it may hide the others.
func cgroupMount(mountinfo string) string {
	found := ""
	for line := range strings.Lines(mountinfo) {
		// 36 35 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw
		mount, kind, ok := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if ok && strings.HasPrefix(kind, "cgroup2 ") && len(fields) >= 5 && fields[3] == "/" {
			found = unescape.Replace(fields[4])
		}
	}
	return found
}

// unescape decodes the characters that the kernel escapes in paths.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
