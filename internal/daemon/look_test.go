package daemon

import (
	"context"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/kernel"
	"github.com/lictor-proxy/lictor/lb"
)

// A service whose tags or filter match nothing is told which of them, and how many instances there are.
func TestMismatch(t *testing.T) {
	known := []discovery.Instance{{Tags: []string{"V2"}}, {Tags: []string{"blue", "x"}}, {Tags: []string{"blue", "v2"}}}
	for _, tt := range []struct {
		tags   []string
		filter string
		want   string
	}{
		{[]string{"green"}, "", `Consul has 3 instances, but none has the tag "green"`},
		{[]string{"v2", "green"}, "", `Consul has 3 instances, but none has the tag "green"`},
		{[]string{"v2", "x"}, "", `Consul has 3 instances, but none has all of the tags ["v2" "x"]`},
		{[]string{"v2", "blue"}, "a == b",
			`Consul has 3 instances, but none with the tags ["v2" "blue"] matches the filter "a == b"`},
		{nil, "a == b", `Consul has 3 instances, but none matches the filter "a == b"`},
	} {
		if got := mismatch(config.ConsulQuery{Tags: tt.tags, Filter: tt.filter}, known); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

// A partlyHidden returns one instance and reports hidden ones.
type partlyHidden struct{}

func (partlyHidden) OwnZone(context.Context, discovery.Query) (zone, problem string) {
	return "", "not asked"
}

func (partlyHidden) Look(context.Context, discovery.Query) ([]discovery.Instance, error) {
	one := discovery.Instance{Endpoint: lb.Endpoint{ID: "n/a", Host: "a", Weight: 1}}
	return []discovery.Instance{one}, &discovery.HiddenError{Missing: "node:read"}
}

func (partlyHidden) LookChain(context.Context, discovery.Watch) ([]discovery.Tier, []discovery.LeftOut, error) {
	return nil, nil, nil
}

// Instances that the token may not read cause a warning. The other instances are shown.
func TestLookWarnsOfHiddenInstances(t *testing.T) {
	s := config.Service{Name: "web", Consul: &config.ConsulQuery{Service: "web"}}
	all, problems := lookAt(t.Context(), &config.Config{}, s, partlyHidden{})
	if len(problems) != 1 || problems[0].Severity != hcl.DiagWarning ||
		!strings.Contains(problems[0].Detail, `Service "web": consul leaves out instances`) ||
		!strings.Contains(problems[0].Detail, "node:read") {
		t.Errorf("problems %v", problems)
	}
	if len(all) != 1 || len(all[0].instances) != 1 {
		t.Errorf("saw %+v", all)
	}
}

func TestLackOfTheHostIsAnErrorIfServicesNeedIt(t *testing.T) {
	old, denied := &kernel.Error{Reason: kernel.NoSupport}, &kernel.Error{Reason: kernel.NoCapability}
	for _, tt := range []struct {
		name   string
		err    error
		needed bool
		want   hcl.DiagnosticSeverity
	}{
		{"needed", old, true, hcl.DiagError},
		{"not needed", old, false, hcl.DiagWarning},
		{"a capability that another user may have", denied, true, hcl.DiagWarning},
	} {
		if got := lacks("Something", tt.err, tt.needed); got.Severity != tt.want {
			t.Errorf("%s: got severity %v, want %v", tt.name, got.Severity, tt.want)
		}
	}
}
