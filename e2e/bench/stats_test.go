package main

import (
	"math"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	nan := math.NaN()
	for _, test := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{"none", nil, nan},
		{"one", []float64{3}, 3},
		{"odd", []float64{9, 1, 5}, 5},
		{"even", []float64{4, 1, 2, 9}, 3},
		{"gaps", []float64{nan, 2, nan, 4}, 3},
		{"gaps only", []float64{nan}, nan},
	} {
		if got := median(test.values); !same(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func TestMedianLeavesItsArgumentAlone(t *testing.T) {
	values := []float64{3, 1, 2}
	median(values)
	if values[0] != 3 || values[1] != 1 || values[2] != 2 {
		t.Errorf("got %v, want it as it was", values)
	}
}

func TestMedianRatio(t *testing.T) {
	nan := math.NaN()
	for _, test := range []struct {
		name             string
		values, baseline []float64
		want             float64
	}{
		{"none", nil, nil, nan},
		{"round by round, not of the medians", []float64{1, 10, 100}, []float64{2, 10, 50}, 1},
		{"a round is missing", []float64{1, nan, 3}, []float64{2, 1, 3}, 0.75},
		{"the baseline is nothing", []float64{1, 2}, []float64{0, 4}, 0.5},
		{"fewer rounds of the baseline", []float64{6, 9}, []float64{3}, 2},
	} {
		if got := medianRatio(test.values, test.baseline); !same(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func TestHistogramPercentiles(t *testing.T) {
	var h histogram
	if got := h.percentile(0.5); !math.IsNaN(got) {
		t.Errorf("empty: got %v, want NaN", got)
	}
	for i := 1; i <= 1000; i++ {
		h.record(time.Duration(i) * time.Microsecond)
	}
	for _, test := range []struct{ part, want float64 }{{0, 1e3}, {0.5, 500e3}, {0.99, 990e3}, {1, 1e6}} {
		if got := h.percentile(test.part); math.Abs(got-test.want) > test.want/64 {
			t.Errorf("percentile %v: got %v, want %v within 1/64", test.part, got, test.want)
		}
	}
}

func TestHistogramBucketsHaveNoGaps(t *testing.T) {
	last := -1
	for v := uint64(0); v < 1<<16; v++ {
		b := bucketOf(v)
		if b != last && b != last+1 {
			t.Fatalf("value %d: got bucket %d after %d", v, b, last)
		}
		last = b
		if m := bucketMiddle(b); math.Abs(float64(m)-float64(v)) > float64(v)/64 {
			t.Fatalf("value %d: its bucket %d stands for %d", v, b, m)
		}
	}
	if b := bucketOf(math.MaxInt64); b >= len(histogram{}.counts) {
		t.Errorf("the longest duration: got bucket %d of %d", b, len(histogram{}.counts))
	}
}

func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }

func TestQuartile(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5, 7}, 1}, {[]float64{9, 1, 5, 7, 3}, 3}} {
		if got := quartile(test.values); got != test.want {
			t.Errorf("%v: got %v, want %v", test.values, got, test.want)
		}
	}
}
