package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/testpatroni"
)

// results holds the figures of all runs, by scenario.
type results struct {
	names []string // in the order of their first runs
	runs  map[string][]result
}

func (r *results) add(name string, run result) {
	if r.runs == nil {
		r.runs = map[string][]result{}
	}
	if len(r.runs[name]) == 0 {
		r.names = append(r.names, name)
	}
	r.runs[name] = append(r.runs[name], run)
}

// print prints the results as a table in Markdown.
func (r *results) print(w io.Writer) {
	_, _ = fmt.Fprintln(w, "| scenario | runs | outage through Lictor, s | outage through HAProxy, s "+
		"| read-only errors | acknowledged writes lost | other errors |\n|---|--:|--:|--:|--:|--:|--:|")
	for _, name := range r.names {
		var lictor, haproxy []testpatroni.Tally
		for _, run := range r.runs[name] {
			lictor, haproxy = append(lictor, run.lictor), append(haproxy, run.haproxy)
		}
		both := func(count func(testpatroni.Tally) int) string {
			return fmt.Sprintf("%d / %d", sum(lictor, count), sum(haproxy, count))
		}
		_, _ = fmt.Fprintf(w, "| %s | %d | %s | %s | %s | %s | %s |\n", name, len(lictor),
			outages(lictor), outages(haproxy),
			both(func(t testpatroni.Tally) int { return t.ReadOnly }),
			both(func(t testpatroni.Tally) int { return t.Lost }),
			both(func(t testpatroni.Tally) int { return t.Errors }))
	}
}

// outages returns the median of the outages. If there are several, it adds the shortest and the longest.
func outages(all []testpatroni.Tally) string {
	var times []time.Duration
	for _, t := range all {
		times = append(times, t.Outage)
	}
	slices.Sort(times)
	median := (times[(len(times)-1)/2] + times[len(times)/2]) / 2
	if len(times) == 1 {
		return fmt.Sprintf("%.2f", median.Seconds())
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", median.Seconds(), times[0].Seconds(), times[len(times)-1].Seconds())
}

func sum(all []testpatroni.Tally, count func(testpatroni.Tally) int) (n int) {
	for _, t := range all {
		n += count(t)
	}
	return n
}
