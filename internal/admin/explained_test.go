package admin

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

type explainer struct{ discovery.Explanation }

func (e explainer) Explain(service string) (discovery.Explanation, bool) {
	return e.Explanation, service == "web"
}

func TestExplainedSaysWhatTheSourceKnows(t *testing.T) {
	at := func(id string) lb.Endpoint {
		return lb.Endpoint{ID: id, Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}
	}
	held := time.Unix(1900000000, 0)
	x := explainer{discovery.Explanation{Tiers: []discovery.TierStatus{{Name: "dc2", Instances: []discovery.Instance{{Endpoint: at("a")}, {Endpoint: at("e")}}}, {Name: "dc1", Active: true, Instances: []discovery.Instance{
		{Endpoint: at("a"), Status: "passing"},
		{Endpoint: at("b"), Status: "critical", Out: discovery.OutStatus, Detail: `check "http" says: 500`},
		{Endpoint: at("c"), Held: held, Detail: "Consul does not name it any more"},
		{Endpoint: lb.Endpoint{ID: "d"}, Out: discovery.OutAddress, Detail: "has no address"},
	}}}}}
	ask := ExplainedBy(func() Explainer { return x })
	var got []string
	for _, e := range ask("web") {
		got = append(got, strings.Join([]string{e.ID, e.Address, e.State, e.Reason, e.Detail}, "|"))
	}
	want := []string{"a|10.0.0.1:80|in|healthy|", `b|10.0.0.1:80|out|status|critical, check "http" says: 500`, "c|10.0.0.1:80|in|held|Consul does not name it any more", "d||out|address|has no address", "e|10.0.0.1:80|out|standby|dc2 is not in use"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	x.Tiers[1].Watch.Saved = held
	if e := ExplainedBy(func() Explainer { return x })("web")[0]; e.Reason != ReasonSaved {
		t.Errorf("got %+v", e)
	}
	if ask("dns") != nil || ExplainedBy(func() Explainer { return nil })("web") != nil {
		t.Error("what is not watched is explained")
	}
}
