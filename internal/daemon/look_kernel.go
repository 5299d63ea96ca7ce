package daemon

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/kernel"
)

// KernelPaths says which of the services that ask for the kernel path would be on it, and why the others would not, as
// far as the configuration decides it. There is one line for each reason. There are none if no service asks.
func KernelPaths(cfg *config.Config) []string { return kernelPaths(cfg, nil, nil) }

// kernelPaths is KernelPaths for a host that has no kernel path because of err, or has path. Without both, the kernel
// path can do all.
func kernelPaths(cfg *config.Config, err error, path kernelPath) (lines []string) {
	on, off := kernelServices(cfg, nil, err, path)
	by := map[string][]string{} // services, by reason
	for i := range cfg.Services {
		if s := &cfg.Services[i]; s.KernelPath != config.KernelPathOff && off[s.Name] != "" {
			by[off[s.Name]] = append(by[off[s.Name]], s.Name)
		}
	}
	line := func(what string, names []string, why string) {
		lines = append(lines, fmt.Sprintf("%s: %s (%s)%s", what, config.Plural(len(names), "service"),
			endpoints.SomeOf(names), why))
	}
	if len(on) > 0 {
		line("kernel path", slices.Sorted(maps.Keys(on)), "")
	}
	for _, why := range slices.Sorted(maps.Keys(by)) {
		line("not on the kernel path", by[why], ": "+why)
	}
	return lines
}

// LookAtKernelPath returns what KernelPaths does, with what this host allows, and the problems of this host. Nothing
// stays attached.
func LookAtKernelPath(cfg *config.Config) (lines []string, problems hcl.Diagnostics) {
	on, _ := kernelServices(cfg, nil, nil, nil)
	if len(on) == 0 {
		return KernelPaths(cfg), nil
	}
	path, err := openKernelPath(kernel.Options{Cgroup: cfg.KernelPathCgroup})
	if err != nil {
		problem := lacks("No kernel path on this host", err, cfg.NeedsKernelPath())
		return kernelPaths(cfg, err, nil), hcl.Diagnostics{problem}
	}
	defer func() { _ = path.Close() }()
	said := map[string]*hcl.Diagnostic{}
	for i := range cfg.Services {
		s := &cfg.Services[i]
		why := cannotCut(s, path)
		if on[s.Name] == nil || why == nil {
			continue
		}
		d := lacks("Kernel path of this host cannot cut connections", why, s.KernelPath == config.KernelPathOn)
		if former := said[why.Error()]; former == nil {
			said[why.Error()], problems = d, append(problems, d)
		} else if d.Severity == hcl.DiagError {
			former.Severity = hcl.DiagError
		}
	}
	return kernelPaths(cfg, nil, path), problems
}

// lacks returns a diagnostic of what this host lacks. It is an error if services need that and no other user may have
// it.
func lacks(summary string, err error, needed bool) *hcl.Diagnostic {
	d := &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: summary, Detail: err.Error() + "."}
	var why *kernel.Error
	switch {
	case errors.As(err, &why) && why.Reason == kernel.NoCapability:
		d.Detail += " Ignore this if lictor runs as another user."
	case needed:
		d.Severity = hcl.DiagError
	}
	return d
}
