package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
)

// A checker asks Consul whether it accepts a query; [discovery.Consul] does.
type checker interface {
	Check(ctx context.Context, q discovery.Query) error
}

// hasFilters tells whether there is anything for checkFilters to ask.
func hasFilters(cfg *config.Config) bool {
	for _, s := range cfg.Services {
		if s.Consul != nil && s.Consul.Filter != "" {
			return true
		}
	}
	return false
}

// allSaved tells whether all services with a filter have saved endpoints.
func allSaved(cfg *config.Config, consul *discovery.Consul) bool {
	saved := map[string]bool{}
	for _, set := range consul.Saved() {
		saved[set.Service] = true
	}
	for _, s := range cfg.Services {
		if s.Consul != nil && s.Consul.Filter != "" && !saved[s.Name] {
			return false
		}
	}
	return true
}

// checkFilters asks Consul about the filter of each service, once for equal ones. A refusal becomes an error at the filter; that Consul
// cannot be asked ends the matter with err, along with what was refused until then.
func checkFilters(ctx context.Context, cfg *config.Config, consul checker) (refused hcl.Diagnostics, err error) {
	type key struct{ filter, datacenter string }
	answers := map[key]*discovery.RefusedError{}
	for _, s := range cfg.Services {
		if s.Consul == nil || s.Consul.Filter == "" {
			continue
		}
		k := key{s.Consul.Filter, s.Consul.Datacenter}
		answer, known := answers[k]
		if !known {
			if err := consul.Check(ctx, queryOf(*s.Consul)); err != nil && !errors.As(err, &answer) {
				return refused, err
			}
			answers[k] = answer
		}
		if answer != nil {
			refused = append(refused, &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Filter refused by Consul",
				Detail:   fmt.Sprintf("Service %q: %s.", s.Name, answer.Reason),
				Subject:  s.Consul.FilterRange.Ptr(),
			})
		}
	}
	return refused, nil
}
