package admin

import (
	"testing"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

func TestPreferenceInWords(t *testing.T) {
	query := discovery.Query{Prefer: discovery.Prefer{By: "zone"}}
	for _, tt := range []struct {
		balanced lb.NearSnapshot
		watches  []discovery.WatchStatus
		want     string
	}{
		{lb.NearSnapshot{Prefer: lb.PreferFair, Share: .5, Weight: .25, Stayed: 5, Left: 6},
			[]discovery.WatchStatus{{Query: query, Zone: "eu/eu-a"}},
			"prefers the same zone (eu/eu-a); 25% of the weight is there, and 50% of the clients stay; " +
				"so far 6 of 11 left"},
		{lb.NearSnapshot{Prefer: lb.PreferStrict, Share: 1, Weight: .25},
			[]discovery.WatchStatus{{Query: query, Zone: "eu/eu-a"}, {Query: query, NoZone: "no answer"}},
			"prefers the same zone (eu/eu-a), strictly; 25% of the weight is there, and 100% of the clients stay"},
		{lb.NearSnapshot{Prefer: lb.PreferFair}, []discovery.WatchStatus{{Query: query, NoZone: "denied"}},
			"prefers the same zone, which is not known: denied"},
	} {
		n := nearOf(&tt.balanced)
		for i := range tt.watches {
			n.watched(&tt.watches[i])
		}
		if got := n.Text(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
	if n := nearOf(nil); n != nil {
		t.Errorf("without preference: got %+v", n)
	}
}
