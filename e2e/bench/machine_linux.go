package main

import (
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// A machine describes the machine of a run. Figures are comparable only on the same machine.
type machine struct {
	CPU         string            `json:"cpu"`
	Cores       int               `json:"cores"`
	Memory      uint64            `json:"memory"`
	Kernel      string            `json:"kernel"`
	Go          string            `json:"go"`
	Commit      string            `json:"commit"`
	Versions    map[string]string `json:"versions"` // of the targets
	Missing     []string          `json:"missing,omitempty"`
	Descriptors int               `json:"descriptors"`
	Load        string            `json:"load_average"`
	Quick       bool              `json:"quick"`
	Pinned      bool              `json:"pinned"`
	Mesh        string            `json:"mesh,omitempty"` // the terms of its TLS; empty: no mesh was needed
}

func describe(b *bench) machine {
	m := machine{
		CPU: cpuModel(), Cores: runtime.NumCPU(), Go: runtime.Version(),
		Commit:   output("git", "describe", "--always", "--dirty"),
		Versions: map[string]string{}, Missing: b.options.missing, Descriptors: descriptorLimit(),
		Quick: b.options.quick, Pinned: b.options.pin,
	}
	if b.mesh != nil {
		m.Mesh = meshTerms
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = info.Totalram * uint64(info.Unit)
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.TrimSpace(string(text))
	}
	for _, t := range b.targets {
		m.Versions[t.name] = version(t.name, b.options.lictor)
	}
	return m
}

var versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)?[^\s]*`)

func version(target, lictor string) string {
	switch {
	case strings.HasPrefix(target, "lictor"):
		first, _, _ := strings.Cut(output(lictor, "version"), "\n")
		return first
	case target == "consul-proxy":
		binary, _ := testconsul.Find() // there is none if it was not found
		return versionNumber.FindString(output(binary, "version"))
	case strings.HasPrefix(target, "haproxy"):
		return versionNumber.FindString(output(locate("haproxy"), "-v"))
	case target == "nginx":
		return versionNumber.FindString(output(locate("nginx"), "-v"))
	}
	return ""
}

// output returns what a command prints, or "" if it fails.
func output(name string, args ...string) string {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
