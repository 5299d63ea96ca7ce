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
func KernelPaths(cfg *config.Config) []string { return kernelPaths(cfg, nil) }

func kernelPaths(cfg *config.Config, host error) (lines []string) {
	on, off := kernelServices(cfg, nil, host, nil)
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
	if on, _ := kernelServices(cfg, nil, nil, nil); len(on) == 0 {
		return KernelPaths(cfg), nil
	}
	err := kernel.Probe(cfg.KernelPathCgroup)
	if err != nil {
		d := &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "No kernel path on this host",
			Detail: err.Error() + "."}
		var why *kernel.Error
		switch {
		case errors.As(err, &why) && why.Reason == kernel.NoCapability:
			d.Detail += " Ignore this if lictor runs as another user."
		case cfg.NeedsKernelPath():
			d.Severity = hcl.DiagError
		}
		problems = append(problems, d)
	}
	return kernelPaths(cfg, err), problems
}
