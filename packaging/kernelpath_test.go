//go:build linux

package packaging

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// settings returns the values of the settings of a unit, in order, by name.
func settings(text string) map[string][]string {
	all := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^([A-Za-z]+)=(.*)$`).FindAllStringSubmatch(text, -1) {
		all[m[1]] = append(all[m[1]], strings.Fields(m[2])...)
	}
	return all
}

// The drop-in adds what the unit denies, and only that. The page has the same lines.
func TestDropInOfTheKernelPath(t *testing.T) {
	unit, dropIn := settings(read(t, "lictor.service")), settings(read(t, "kernel-path.conf"))
	rights := []string{"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"}
	for _, name := range []string{"AmbientCapabilities", "CapabilityBoundingSet"} {
		if !slices.Equal(dropIn[name], rights) {
			t.Errorf("%s has %v, want %v", name, dropIn[name], rights)
		}
		for _, right := range rights {
			if slices.Contains(unit[name], right) {
				t.Errorf("the unit has %s already", right)
			}
		}
	}
	for _, family := range []string{"AF_INET", "AF_INET6", "AF_NETLINK"} {
		if !slices.Contains(unit["RestrictAddressFamilies"], family) {
			t.Errorf("the unit denies %s", family)
		}
	}
	if got := dropIn["SystemCallFilter"]; !slices.Equal(got, []string{"bpf"}) || len(dropIn) != 3 {
		t.Errorf("the drop-in has %v", dropIn)
	}
	page := read(t, "../docs/kernel-path.md")
	for line := range strings.Lines(read(t, "kernel-path.conf")) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(page, line) {
			t.Errorf("docs/kernel-path.md has no line %q", line)
		}
	}
}

// systemd itself says whether the drop-in gives a capability and a system call that the unit does not.
func TestSystemdTakesTheDropIn(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		testproc.Cannot(t, "there is no systemd-analyze", err)
	}
	dir := t.TempDir()
	assess := func() string {
		return run(t, "", []string{"SYSTEMD_UNIT_PATH=" + dir + ":"}, analyze, "security", "--no-pager",
			"--offline=true", filepath.Join(dir, "lictor.service"))
	}
	run(t, "", nil, "install", "-D", "-m", "0644", "lictor.service", filepath.Join(dir, "lictor.service"))
	gives := []string{`✗ CapabilityBoundingSet=~CAP_NET_ADMIN`, `✗ CapabilityBoundingSet=~CAP_BPF`,
		`✗ SystemCallFilter=~@privileged .*bpf is allowed`}
	text := assess()
	for _, line := range gives {
		if regexp.MustCompile(line).MatchString(text) {
			t.Errorf("the unit without the drop-in: %s\n%s", line, text)
		}
	}
	run(t, "", nil, "install", "-D", "-m", "0644", "kernel-path.conf",
		filepath.Join(dir, "lictor.service.d", "kernel-path.conf"))
	text = assess()
	for _, line := range gives {
		if !regexp.MustCompile(line).MatchString(text) {
			t.Errorf("the unit with the drop-in lacks %s\n%s", line, text)
		}
	}
}
