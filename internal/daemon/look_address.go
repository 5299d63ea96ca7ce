package daemon

import (
	"context"
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/consul"
)

// LookForConsul asks each address of Consul whether it answers. It returns a line for each, with the address that a
// daemon with this configuration would use now, and a problem for each address that it could not use. The result is
// empty if Consul has only one address.
func LookForConsul(ctx context.Context, cfg *config.Config) (lines []string, problems hcl.Diagnostics) {
	client, err := consul.New(clientOptions(cfg.Consul))
	if err != nil {
		return nil, nil // Look reports it
	}
	defer client.CloseIdle()
	all := client.Survey(ctx)
	if len(all) < 2 {
		return nil, nil
	}
	chosen := false
	for _, one := range all {
		switch {
		case one.Err != nil:
			lines = append(lines, fmt.Sprintf("consul at %s: not usable: %v", one.Address, one.Err))
			problems = append(problems, &hcl.Diagnostic{Severity: hcl.DiagWarning,
				Summary: "Address of Consul not usable", Detail: fmt.Sprintf("%s: %v.", one.Address, one.Err)})
		case chosen:
			lines = append(lines, fmt.Sprintf("consul at %s: answers", one.Address))
		default:
			chosen = true
			lines = append(lines, fmt.Sprintf("consul at %s: answers, and would be used", one.Address))
		}
	}
	return lines, problems
}
