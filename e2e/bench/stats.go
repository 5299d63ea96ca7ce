package main

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// median returns the middle of values, or the mean of the two in the middle. It ignores NaNs, and returns NaN without
// values.
func median(values []float64) float64 {
	var sorted []float64
	for _, v := range values {
		if !math.IsNaN(v) {
			sorted = append(sorted, v)
		}
	}
	if len(sorted) == 0 {
		return math.NaN()
	}
	slices.Sort(sorted)
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// quartile returns the value that a quarter of the values, at least one, does not exceed. There must be values.
func quartile(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/4]
}

// medianRatio returns the median of the ratios of each round. A round without one of the two values does not count.
func medianRatio(values, baseline []float64) float64 {
	var ratios []float64
	for i := range min(len(values), len(baseline)) {
		ratios = append(ratios, ratio(values[i], baseline[i]))
	}
	return median(ratios)
}

// ratio returns value / baseline, or NaN if the division has no meaning.
func ratio(value, baseline float64) float64 {
	if baseline == 0 {
		return math.NaN()
	}
	return value / baseline
}

// A histogram counts durations in buckets whose width is at most 1/64 of their value. The zero value is empty and ready
// for use.
type histogram struct {
	counts [64 * subBuckets]uint32
	total  int
}

const (
	subBits    = 6
	subBuckets = 1 << subBits
)

func (h *histogram) record(d time.Duration) {
	h.counts[bucketOf(uint64(max(d, 0)))]++
	h.total++
}

// percentile returns the duration that the given part of all durations does not exceed. part is from 0 to 1. An empty
// histogram gives NaN.
func (h *histogram) percentile(part float64) float64 {
	if h.total == 0 {
		return math.NaN()
	}
	rank := max(int(math.Ceil(part*float64(h.total))), 1)
	seen := 0
	for i, n := range h.counts {
		if seen += int(n); seen >= rank {
			return float64(bucketMiddle(i))
		}
	}
	return math.NaN() // not reached, because the counts add up to total
}

// bucketOf returns the index of the bucket of v. Each value below subBuckets has its own bucket. Above that, each power
// of two has subBuckets buckets.
func bucketOf(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return (shift+1)<<subBits + int(v>>shift) - subBuckets
}

func bucketMiddle(i int) uint64 {
	if i < subBuckets {
		return uint64(i)
	}
	shift := i>>subBits - 1
	low := uint64(i&(subBuckets-1)+subBuckets) << shift
	return low + (uint64(1)<<shift)/2
}
