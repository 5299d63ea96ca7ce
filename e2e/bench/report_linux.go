package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
)

// markdown writes all results as tables.
func (rs results) markdown(w io.Writer, m machine) error {
	var out bytes.Buffer
	m.markdown(&out)
	rs.traffic(&out)
	rs.besideDirect(&out)
	rs.floods(&out)
	rs.changes(&out)
	rs.idle(&out)
	rs.starts(&out)
	rs.added(&out)
	_, err := w.Write(out.Bytes())
	return err
}

func (m machine) markdown(w io.Writer) {
	fmt.Fprintf(w, "%s, %d cores, %.0f GB; Linux %s; %s; commit %s; load average at the end %s", m.CPU, m.Cores,
		float64(m.Memory)/1e9, m.Kernel, m.Go, m.Commit, m.Load)
	for _, name := range []string{"lictor", "haproxy", "consul-proxy", "nginx"} {
		if v := m.Versions[name]; v != "" {
			fmt.Fprintf(w, "; %s %s", name, strings.TrimPrefix(v, name+" "))
		}
	}
	if m.Pinned {
		fmt.Fprint(w, "; pinned")
	}
	if m.Quick {
		fmt.Fprint(w, "; quick")
	}
	fmt.Fprintln(w, ".")
	for _, missing := range m.Missing {
		fmt.Fprintf(w, "Not to be had: %s\n", missing)
	}
	if m.Mesh != "" {
		fmt.Fprintf(w, "\n%s\n", m.Mesh)
	}
	fmt.Fprintln(w, "\nMedians of all rounds. \"x\" is the median of the ratios round by round: to HAProxy, or to "+
		"nginx for UDP.")
}

func (rs results) traffic(w io.Writer) {
	titles := false
	for _, r := range rs {
		if r.load.main != mCPU {
			continue
		}
		if !titles {
			titles = true
			fmt.Fprintln(w, "\n| load | proxy | processor time | x | machine | rate | x | p50 | p99 | x | resident | "+
				"descriptors | errors |")
			fmt.Fprintln(w, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
		}
		fmt.Fprintf(w, "| %s | %s | %s/%s | %s | %s | %s/s | %s | %s | %s | %s | %s | %s | %s |\n", r.load.title,
			r.target.name,
			duration(r.median(mCPU)), r.load.unit, factor(rs.ratio(r, mCPU)), duration(r.median(mMachine)),
			amount(r.median(mRate)), factor(rs.ratio(r, mRate)),
			duration(r.median(mP50)), duration(r.median(mP99)), factor(rs.ratio(r, mP99)),
			size(r.median(mRSS)), amount(r.median(mFDs)), amount(total(r.values(mErrors))))
	}
}

// besideDirect compares all targets with connections without a proxy, where those were measured.
func (rs results) besideDirect(w io.Writer) {
	titles := false
	for _, r := range rs {
		direct := rs.find(r.load, directTarget)
		if r.load.main != mCPU || direct == nil || direct == r {
			continue
		}
		if !titles {
			titles = true
			fmt.Fprintln(w, "\n| load, without a proxy = 1 | proxy | rate | p50 | p99 | machine | "+
				"machine, lictor = 1 |")
			fmt.Fprintln(w, "|---|---|--:|--:|--:|--:|--:|")
		}
		fmt.Fprintf(w, "| %s | %s |", r.load.title, r.target.name)
		for _, metric := range []string{mRate, mP50, mP99, mMachine} {
			fmt.Fprintf(w, " %s |", factor(rs.ratioTo(r, metric, directTarget)))
		}
		fmt.Fprintf(w, " %s |\n", factor(rs.ratioTo(r, mMachine, lictorTarget)))
	}
}

// floods reports how much a flood of TLS handshakes delays other clients.
func (rs results) floods(w io.Writer) {
	titles := false
	for _, r := range rs {
		if r.load.main != mP99Ratio {
			continue
		}
		if !titles {
			titles = true
			fmt.Fprintln(w, "\n| load | proxy | p99 | p99 without the flood = 1 | processor time, with the handshakes "+
				"| handshakes | errors |")
			fmt.Fprintln(w, "|---|---|--:|--:|--:|--:|--:|")
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s/%s | %s/s | %s |\n", r.load.title, r.target.name,
			duration(r.median(mP99)), factor(r.median(mP99Ratio)), duration(r.median(mCPU)), r.load.unit,
			amount(r.median(mFlood)), amount(total(r.values(mErrors))))
	}
}

// changes reports how fast changes take effect.
func (rs results) changes(w io.Writer) {
	titles := false
	for _, r := range rs {
		if r.load.main != mLongest {
			continue
		}
		if !titles {
			titles = true
			fmt.Fprintln(w, "\n| load | proxy | until one takes effect: p50 | p99 | longest | processor time | "+
				"resident | errors |")
			fmt.Fprintln(w, "|---|---|--:|--:|--:|--:|--:|--:|")
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s/%s | %s | %s |\n", r.load.title, r.target.name,
			duration(r.median(mP50)), duration(r.median(mP99)), duration(r.median(mLongest)), duration(r.median(mCPU)),
			r.load.unit, size(r.median(mRSS)), amount(total(r.values(mErrors))))
	}
}

func (rs results) idle(w io.Writer) {
	titles := false
	for _, r := range rs {
		if r.load.main != mPairRSS {
			continue
		}
		if !titles {
			titles = true
			fmt.Fprintln(w, "\n| load | proxy | pairs | resident a pair | x | proportional a pair | descriptors a "+
				"pair | processor time idle | resident in all |")
			fmt.Fprintln(w, "|---|---|--:|--:|--:|--:|--:|--:|--:|")
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s/s | %s |\n", r.load.title, r.target.name,
			amount(r.median(mPairs)),
			size(r.median(mPairRSS)), factor(rs.ratio(r, mPairRSS)), size(r.median(mPairPSS)),
			amount(r.median(mPairFDs)),
			duration(r.median(mIdleCPU)), size(r.median(mRSS)))
	}
}

func (rs results) starts(w io.Writer) {
	titles := false
	for _, r := range rs {
		if r.load.main != mOpen {
			continue
		}
		if !titles {
			titles = true
			fmt.Fprintln(w, "\n| load | proxy | until all listeners are open | x | resident | proportional | "+
				"descriptors |")
			fmt.Fprintln(w, "|---|---|--:|--:|--:|--:|--:|")
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", r.load.title, r.target.name,
			duration(r.median(mOpen)), factor(rs.ratio(r, mOpen)),
			size(r.median(mRSS)), size(r.median(mPSS)), amount(r.median(mFDs)))
	}
}

// added reports what a kernel path costs those who do not use it.
func (rs results) added(w io.Writer) {
	titles := false
	for _, r := range rs {
		if r.load.main != mAdded {
			continue
		}
		if !titles {
			titles = true
			fmt.Fprintln(w, "\n| what a kernel path adds to | proxy | processor time |\n|---|---|--:|")
		}
		fmt.Fprintf(w, "| %s | %s | %.2f us |\n", r.load.title, r.target.name, r.median(mAdded))
	}
}

// total returns the sum of values. A failed measurement is NaN, and so is the sum.
func total(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum
}

const none = "-"

// factor, amount, size and duration format figures with three significant digits.
func factor(f float64) string {
	if math.IsNaN(f) {
		return none
	}
	return fmt.Sprintf("%.2f", f)
}

func amount(f float64) string {
	switch {
	case math.IsNaN(f):
		return none
	case f == math.Trunc(f) && f < 1e6, f >= 100:
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.3g", f)
}

func size(bytes float64) string {
	switch {
	case math.IsNaN(bytes):
		return none
	case math.Abs(bytes) < 100<<10:
		return fmt.Sprintf("%.2f KB", bytes/1024)
	}
	return fmt.Sprintf("%.1f MB", bytes/(1<<20))
}

func duration(us float64) string {
	switch {
	case math.IsNaN(us):
		return none
	case us < 1000:
		return fmt.Sprintf("%.1f us", us)
	case us < 1e6:
		return fmt.Sprintf("%.1f ms", us/1e3)
	}
	return fmt.Sprintf("%.2f s", us/1e6)
}

// A number is a float64 whose NaN is null in JSON.
type number float64

// MarshalJSON implements json.Marshaler.
func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) || math.IsInf(float64(n), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// jsonResult is a result in the JSON output.
type jsonResult struct {
	Load     string              `json:"load"`
	Title    string              `json:"title"`
	Unit     string              `json:"unit,omitempty"`
	Target   string              `json:"target"`
	Baseline string              `json:"baseline"`
	Medians  map[string]number   `json:"medians"`
	Ratios   map[string]number   `json:"ratios"`
	Rounds   []map[string]number `json:"rounds"`
}

// json writes all results as JSON.
func (rs results) json(w io.Writer, m machine) error {
	var all []jsonResult
	for _, r := range rs {
		j := jsonResult{
			Load: r.load.name, Title: r.load.title, Unit: r.load.unit, Target: r.target.name,
			Baseline: r.load.baseline(),
			Medians:  map[string]number{}, Ratios: map[string]number{},
		}
		for _, s := range r.samples {
			round := map[string]number{}
			for metric, v := range s {
				round[metric] = number(v)
				j.Medians[metric] = number(r.median(metric))
				j.Ratios[metric] = number(rs.ratio(r, metric))
			}
			j.Rounds = append(j.Rounds, round)
		}
		all = append(all, j)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Machine machine      `json:"machine"`
		Results []jsonResult `json:"results"`
	}{m, all})
}
