package discovery

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/lictor-proxy/lictor/lb"
)

var (
	_ Sink   = (*lb.RoundRobin)(nil)
	_ Source = (*Static)(nil)
	_ Source = (*Consul)(nil)
)

func TestStaticSendsItsSetsOnceAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		endpoint := lb.Endpoint{ID: "a", Addr: netip.MustParseAddrPort("10.0.0.5:80")}
		sets := []lb.Endpoints{{Service: "x", Endpoints: []lb.Endpoint{endpoint}}, {Service: "y"}}
		s := NewStatic(sets)
		sets[0].Endpoints[0].ID = "changed afterwards"
		ctx, cancel := context.WithCancel(t.Context())
		var r recorder
		done := make(chan error)
		go func() { done <- s.Run(ctx, &r) }()
		synctest.Wait()
		r.want(t, "x: a=10.0.0.5:80", "y:")
		if r.calls != 1 {
			t.Errorf("%d updates, want 1", r.calls)
		}
		select {
		case err := <-done:
			t.Errorf("ended before its context: %v", err)
		default:
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
