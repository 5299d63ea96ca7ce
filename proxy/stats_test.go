package proxy

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestHistogramCountsIntoTheRightBucket(t *testing.T) {
	bounds := DialBounds()
	for _, tt := range []struct {
		took time.Duration
		want int
	}{{0, 0}, {bounds[0], 0}, {bounds[0] + 1, 1}, {bounds[len(bounds)-1], len(bounds) - 1}, {time.Hour, len(bounds)}} {
		var h histogram
		h.observe(tt.took)
		if h.buckets[tt.want].Load() != 1 || h.sum.Load() != int64(tt.took) {
			t.Errorf("%v is not in bucket %d, with its time", tt.took, tt.want)
		}
	}
}

// An Activity agrees with the Stats.
func TestActivityIsOfTheStats(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.start()
		h.endpoints("tcp", tcpServer(t, echo))
		h.endpoints("udp", udpServer(t, echoUDP))
		services := []Service{{Name: "tcp", Listen: []netip.AddrPort{loopback}},
			{Name: "udp", Protocol: UDP, Listen: []netip.AddrPort{loopback}}}
		if err := h.Apply(services); err != nil {
			t.Fatal(err)
		}
		exchange(t, dialTCP(t, h.Listeners()[0].Addr.AddrPort), "hello")
		askOnce(t, dialUDP(t, h.Listeners()[1].Addr.AddrPort), "hello")
		eventually(t, func() error { // an answer may arrive before it is counted
			got := map[string]Activity{}
			h.EachActivity(func(service string, a Activity) { got[service] = a })
			for _, s := range h.Snapshot() {
				a := got[s.Service]
				if a.Clients != 1 || a.Active != 1 || a.Bytes != 10 || a.Dials != s.Dials.Count() ||
					a.DialTime != s.Dials.Sum || (a.Dials > 0) != (s.Service == "tcp") {
					return fmt.Errorf("%s: got %+v of %+v", s.Service, a, s)
				}
			}
			if len(got) != len(services) {
				return fmt.Errorf("%d services, want %d", len(got), len(services))
			}
			return nil
		})
	})
}
