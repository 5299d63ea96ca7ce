package daemon

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
)

// checks counts queries by filter, refuses "bad" and returns an error for "lost".
type checks map[string]int

func (c checks) Check(_ context.Context, q discovery.Query) error {
	c[q.Filter]++
	switch q.Filter {
	case "bad":
		return &discovery.RefusedError{Query: q, Reason: "no such selector"}
	case "lost":
		return errors.New("connection refused")
	}
	return nil
}

func filtered(filters ...string) *config.Config {
	cfg := &config.Config{Services: []config.Service{{Name: "static", Static: &config.Static{}}}}
	for i, f := range filters {
		at := hcl.Range{Filename: "test.hcl", Start: hcl.Pos{Line: i + 1}}
		cfg.Services = append(cfg.Services, config.Service{Name: "web",
			Consul: &config.ConsulQuery{Service: "web", Filter: f, FilterRange: at}})
	}
	return cfg
}

func TestCheckFiltersReportsEachRefusedOne(t *testing.T) {
	asked := checks{}
	refused, err := checkFilters(t.Context(), filtered("good", "bad", "", "bad"), asked)
	if err != nil || len(refused) != 2 || refused[0].Subject.Start.Line != 2 || refused[1].Subject.Start.Line != 4 {
		t.Errorf("got %v, %v, want errors on lines 2 and 4", refused, err)
	}
	if asked["bad"] != 1 || asked["good"] != 1 || asked[""] != 0 {
		t.Errorf("got queries %v, want one for each filter", asked)
	}
}

func TestCheckFiltersEndsWhenConsulCannotBeAsked(t *testing.T) {
	asked := checks{}
	refused, err := checkFilters(t.Context(), filtered("bad", "lost", "good"), asked)
	if len(refused) != 1 || err == nil || !strings.Contains(err.Error(), "connection refused") || asked["good"] != 0 {
		t.Errorf("got %v, %v, and queries %v", refused, err, asked)
	}
}
