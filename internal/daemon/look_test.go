package daemon

import (
	"context"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

// A partlyHidden returns one instance and reports hidden ones.
type partlyHidden struct{}

func (partlyHidden) Look(context.Context, discovery.Query) ([]discovery.Instance, error) {
	one := discovery.Instance{Endpoint: lb.Endpoint{ID: "n/a", Host: "a", Weight: 1}}
	return []discovery.Instance{one}, &discovery.HiddenError{Missing: "node:read"}
}

// Instances that the token may not read cause a warning. The other instances are shown.
func TestLookWarnsOfHiddenInstances(t *testing.T) {
	s := config.Service{Name: "web", Consul: &config.ConsulQuery{Service: "web"}}
	all, problems := lookAt(t.Context(), s, partlyHidden{})
	if len(problems) != 1 || problems[0].Severity != hcl.DiagWarning ||
		!strings.Contains(problems[0].Detail, `Service "web": consul leaves out instances`) ||
		!strings.Contains(problems[0].Detail, "node:read") {
		t.Errorf("problems %v", problems)
	}
	if len(all) != 1 || len(all[0].instances) != 1 {
		t.Errorf("saw %+v", all)
	}
}
