package proxy

import (
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
