package admin

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

type explainer struct{ discovery.Explanation }

func (e explainer) Tiers(service string) []discovery.TierUse {
	if service != "web" {
		return nil
	}
	return []discovery.TierUse{{Name: "dc2", Detail: "all 2 endpoints of dc2 are ejected"}, {Name: "dc1", Active: true}}
}

func (e explainer) Explain(service string) (discovery.Explanation, bool) {
	return e.Explanation, service == "web"
}

func (e explainer) Excluded(_ context.Context, service string) ([]discovery.Instance, error) {
	if service != "web" {
		return nil, errors.New("lost")
	}
	return []discovery.Instance{{Endpoint: lb.Endpoint{ID: "f"}, Out: discovery.OutTags, Detail: "no v2",
		Tags: []string{"v1"}}}, nil
}

func TestExplainedSaysWhatTheSourceKnows(t *testing.T) {
	at := func(id string) lb.Endpoint {
		return lb.Endpoint{ID: id, Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}
	}
	held := time.Unix(1900000000, 0)
	x := explainer{discovery.Explanation{Tiers: []discovery.TierStatus{{Name: "dc2",
		Instances: []discovery.Instance{{Endpoint: at("a")}, {Endpoint: at("e")}}},
		{Name: "dc1", Active: true, Instances: []discovery.Instance{
			{Endpoint: at("a"), Status: "passing"},
			{Endpoint: at("b"), Status: "critical", Out: discovery.OutStatus, Detail: `check "http" says: 500`},
			{Endpoint: at("c"), Held: held, Detail: "Consul no longer names it"},
			{Endpoint: lb.Endpoint{ID: "d"}, Out: discovery.OutAddress, Detail: "has no address"},
		}}}}}
	ask := ExplainedBy(func() Explainer { return x })
	var got []string
	for _, e := range ask("web") {
		got = append(got, strings.Join([]string{e.ID, e.Address, e.State, e.Reason, e.Detail}, "|"))
	}
	want := []string{"a|10.0.0.1:80|in|healthy|", `b|10.0.0.1:80|out|status|critical, check "http" says: 500`,
		"c|10.0.0.1:80|in|held|Consul no longer names it", "d||out|address|has no address",
		"e|10.0.0.1:80|out|standby|dc2 is not in use"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	x.Explanation.Tiers[0].Failed = true
	if e := ask("web")[4]; !strings.HasSuffix(e.Detail, "dc2 is not in use: all its endpoints failed") {
		t.Errorf("got %+v", e)
	}
	x.Explanation.Tiers[1].Watch.Saved = held
	if e := ExplainedBy(func() Explainer { return x })("web")[0]; e.Reason != ReasonSaved {
		t.Errorf("got %+v", e)
	}
	if ask("dns") != nil || ExplainedBy(func() Explainer { return nil })("web") != nil {
		t.Error("what is not watched is explained")
	}
}

func TestExcludedInstancesAreAskedFor(t *testing.T) {
	h := serve(t, Options{}, "web", "dns")
	var got ExcludedAnswer
	if h.get("/v1/services/web/excluded", &got); got.Endpoints == nil || len(got.Endpoints) != 0 {
		t.Errorf("without a source: got %+v", got)
	}
	h = serve(t, Options{State: State{Excluded: ExcludedBy(func() Explainer { return explainer{} })}}, "web", "dns")
	h.get("/v1/services/web/excluded", &got)
	want := []Endpoint{{ID: "f", State: StateOut, Reason: ReasonTags, Detail: "no v2", Tags: []string{"v1"}}}
	if diff := cmp.Diff(want, got.Endpoints); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for path, code := range map[string]int{"/v1/services/dns/excluded": http.StatusServiceUnavailable,
		"/v1/services/none/excluded": http.StatusNotFound} {
		var answer *APIError
		if err := h.client.Get(t.Context(), path, &got); !errors.As(err, &answer) || answer.Code != code {
			t.Errorf("%s: got %v, want %d", path, err, code)
		}
	}
	if all, err := ExcludedBy(func() Explainer { return nil })(t.Context(), "web"); all != nil || err != nil {
		t.Errorf("got %v, %v", all, err)
	}
}

func TestSinceIsOfTheReasonThatIsGiven(t *testing.T) {
	long := time.Unix(1700000000, 0)
	e := Endpoint{State: StateIn, Reason: ReasonHealthy, Since: &long}
	e.because(&Endpoint{State: StateIn, Reason: ReasonHealthy, Detail: "fine"})
	if e.Since != &long || e.Detail != "fine" {
		t.Errorf("got %+v", e)
	}
	if e.because(&Endpoint{State: StateOut, Reason: ReasonEjected}); e.Since != nil || e.State != StateOut {
		t.Errorf("got %+v", e)
	}
}
