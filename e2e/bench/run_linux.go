package main

import (
	"math"
	"time"
)

// A result holds the samples of all rounds for one load on one target.
type result struct {
	load    *load
	target  *target
	samples []sample // one per round
}

// values returns the values of a metric, one per round. A missing value is NaN.
func (r *result) values(metric string) []float64 {
	var all []float64
	for _, s := range r.samples {
		v, ok := s[metric]
		if !ok {
			v = math.NaN()
		}
		all = append(all, v)
	}
	return all
}

func (r *result) median(metric string) float64 { return median(r.values(metric)) }

// results are the results of all loads, in order.
type results []*result

func (rs results) find(l *load, target string) *result {
	for _, r := range rs {
		if r.load == l && r.target.name == target {
			return r
		}
	}
	return nil
}

// ratio returns the ratio of a metric to that of the load's baseline.
func (rs results) ratio(r *result, metric string) float64 {
	return rs.ratioTo(r, metric, r.load.baseline())
}

// ratioTo returns the ratio of a metric to that of another target.
func (rs results) ratioTo(r *result, metric, target string) float64 {
	base := rs.find(r.load, target)
	if base == nil {
		return math.NaN()
	}
	return medianRatio(r.values(metric), base.values(metric))
}

// compare runs all loads on all targets, round after round, until all rounds are done or the time does not suffice for
// another.
func (b *bench) compare() (results, error) {
	if err := b.launchAll(); err != nil {
		return nil, err
	}
	var all results
	var wanted []*load
	for _, l := range loads() {
		if !b.options.only.MatchString(l.name) || l.fullOnly && b.options.quick || l.mesh && b.mesh == nil {
			continue
		}
		wanted = append(wanted, l)
		for _, t := range b.targets {
			if l.suits(t) {
				all = append(all, &result{load: l, target: t})
			}
		}
	}
	var last time.Duration // duration of the last round
	for round := range b.options.rounds {
		if time.Since(b.began)+last > b.options.time {
			b.say("no time for round %d of %d", round+1, b.options.rounds)
			break
		}
		began := time.Now()
		for _, l := range wanted {
			if round < b.roundsOf(l) && time.Since(b.began) < b.options.time {
				b.say("round %d of %d: %s", round+1, b.options.rounds, l.name)
				b.round(l, round, all)
			}
		}
		last = time.Since(began)
	}
	return all, nil
}

// roundsOf returns how many rounds a load gets. Memory and start times need fewer, because they vary less than
// processor time.
func (b *bench) roundsOf(l *load) int {
	switch {
	case l.rounds == 0:
		return b.options.rounds
	case b.options.quick:
		return 1
	}
	return l.rounds
}

// sample runs a load once on a target.
func (b *bench) sample(l *load, t *target) (sample, error) {
	if l.kernel {
		return l.run(b, t)
	}
	return b.as(t, func() (sample, error) { return l.run(b, t) })
}

// round runs a load once on each target. Each round begins with another target.
func (b *bench) round(l *load, round int, all results) {
	b.options.current = l.name
	for n := range b.targets {
		t := b.targets[(n+round)%len(b.targets)]
		r := all.find(l, t.name)
		if r == nil {
			continue
		}
		time.Sleep(settle)
		s, err := b.sample(l, t)
		if err != nil {
			b.say("  %s on %s: %v", l.name, t.name, err)
			s = missing()
		}
		r.samples = append(r.samples, s)
	}
}
