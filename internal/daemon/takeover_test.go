package daemon

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

// A predecessor of an older version names only the drained endpoints, and a successor of an older version reads only
// those.
func TestDrainsGoOverFromAndToAnOlderVersion(t *testing.T) {
	drains := []endpoints.ExportedDrain{
		{Service: "web", Endpoint: "a", By: "alice", Left: time.Minute}, {Service: "web", Endpoint: "b"},
	}
	ids := drainedIDs(drains)
	if diff := cmp.Diff(map[string][]string{"web": {"a", "b"}}, ids); diff != "" {
		t.Errorf("for an older version (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(drains, drainsOf(&upgrade.State{Drains: drains, Drained: ids})); diff != "" {
		t.Errorf("from this version (-want +got):\n%s", diff)
	}
	old := []endpoints.ExportedDrain{{Service: "web", Endpoint: "a"}, {Service: "web", Endpoint: "b"}}
	if diff := cmp.Diff(old, drainsOf(&upgrade.State{Drained: ids})); diff != "" {
		t.Errorf("from an older version (-want +got):\n%s", diff)
	}
}
