package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
)

// askTimeout limits the time for Consul's answers about all filters together.
const askTimeout = 3 * time.Second

// A checker checks whether Consul accepts a query. [discovery.Consul] is one.
type checker interface {
	Check(ctx context.Context, q discovery.Query) error
}

// A filterOf is a query that Consul may refuse, and its service.
type filterOf struct {
	service string
	query   config.ConsulQuery
	at      hcl.Range // the filter, or the service
}

// filters returns all queries that Consul may refuse: those with a filter, and those with a namespace or partition,
// which only Consul Enterprise accepts.
func filters(cfg *config.Config) []filterOf {
	var all []filterOf
	everywhere := cfg.Consul.Namespace+cfg.Consul.Partition != ""
	for _, s := range cfg.Services {
		for _, q := range queriesOf(s) {
			switch {
			case q.Filter != "":
				all = append(all, filterOf{s.Name, q, q.FilterRange})
			case everywhere, q.Namespace+q.Partition != "":
				all = append(all, filterOf{s.Name, q, s.DeclRange})
			}
		}
	}
	return all
}

// queriesOf returns all queries of a service, in order of preference.
func queriesOf(s config.Service) []config.ConsulQuery {
	if s.Consul == nil {
		return nil
	}
	return append([]config.ConsulQuery{*s.Consul}, s.Failover...)
}

// hasFilters reports whether Consul may refuse any query.
func hasFilters(cfg *config.Config) bool { return len(filters(cfg)) > 0 }

// allSaved reports whether all services whose queries Consul may refuse have saved endpoints.
func allSaved(cfg *config.Config, consul *discovery.Consul) bool {
	saved := map[string]bool{}
	for _, set := range consul.Saved() {
		saved[set.Service] = true
	}
	for _, f := range filters(cfg) {
		if !saved[f.service] {
			return false
		}
	}
	return true
}

// A RefusedFiltersError says that Consul refused filters.
type RefusedFiltersError struct{ Diagnostics hcl.Diagnostics } // one for each refused filter

func (e *RefusedFiltersError) Error() string {
	return config.Diagnostics{Diagnostics: e.Diagnostics}.Err().Error()
}

// enterpriseHint returns what to do if Consul has refused a query for this reason because it is the community edition.
// The result is empty for other reasons.
func enterpriseHint(reason string) string {
	if !strings.Contains(reason, "Consul Enterprise feature") {
		return ""
	}
	return " This Consul is the community edition. Remove namespace and partition from the configuration, and " +
		"CONSUL_NAMESPACE and CONSUL_PARTITION from the environment."
}

// checkFilters checks the filters with Consul before anything is served. checkFilters returns nil if Consul does not
// answer. checkFilters checks nothing if all services with a filter have saved endpoints, because Consul accepted their
// filters once.
func (d *Daemon) checkFilters(ctx context.Context, cfg *config.Config, consul *discovery.Consul) error {
	if consul == nil || !hasFilters(cfg) || allSaved(cfg, consul) {
		return nil
	}
	settling, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	consul.Client().Settle(settling, "")
	return d.refusals(ctx, cfg, consul)
}

// refusals returns a *RefusedFiltersError if Consul refuses filters of cfg. refusals returns nil if Consul does not
// answer.
func (d *Daemon) refusals(ctx context.Context, cfg *config.Config, client checker) error {
	if !hasFilters(cfg) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	refused, err := checkFilters(ctx, cfg, client)
	if err != nil {
		d.log.Debug("filters not checked", "error", err)
	}
	if len(refused) > 0 {
		return &RefusedFiltersError{refused}
	}
	return nil
}

// CheckFilters checks the filters of cfg with Consul. CheckFilters returns one diagnostic for each refused filter. The
// error says why Consul did not answer within askTimeout.
func CheckFilters(ctx context.Context, cfg *config.Config) (refused hcl.Diagnostics, err error) {
	if !hasFilters(cfg) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("no answer within %v", askTimeout))
	defer cancel()
	consul, err := discovery.NewConsul(consulOptions(cfg.Consul, nil))
	if err != nil {
		return nil, err
	}
	consul.Client().Settle(ctx, "")
	return checkFilters(ctx, cfg, consul)
}

// checkFilters checks the filter of each query with Consul, and equal filters once. checkFilters returns one diagnostic
// for each refused filter. If Consul does not answer, checkFilters returns the error and the refusals until then.
func checkFilters(ctx context.Context, cfg *config.Config, consul checker) (refused hcl.Diagnostics, err error) {
	type key struct{ filter, datacenter, namespace, partition string }
	answers := map[key]*discovery.RefusedError{}
	for _, f := range filters(cfg) {
		k := key{f.query.Filter, f.query.Datacenter, f.query.Namespace, f.query.Partition}
		answer, known := answers[k]
		if !known {
			if err := consul.Check(ctx, queryOf(f.query)); err != nil && !errors.As(err, &answer) {
				return refused, err
			}
			answers[k] = answer
		}
		if answer != nil {
			d := &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Filter refused by Consul",
				Detail:   fmt.Sprintf("Service %q: %s.", f.service, answer.Reason),
				Subject:  f.at.Ptr(),
			}
			if hint := enterpriseHint(answer.Reason); hint != "" {
				d.Summary = "Consul Enterprise needed"
				d.Detail += hint
			}
			refused = append(refused, d)
		}
	}
	return refused, nil
}
