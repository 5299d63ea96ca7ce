package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

// someResults returns a load with a baseline, a faster target, and a target whose rounds all failed.
func someResults() results {
	l := &load{name: "a", title: "a <load>", unit: "request", main: mCPU}
	return results{
		{load: l, target: &target{name: lictorTarget},
			samples: []sample{{mCPU: 5, mErrors: 0, mMachine: 40}, {mCPU: 20, mErrors: 1, mMachine: 50},
				{mCPU: 6, mErrors: 0, mMachine: 60}}},
		{load: l, target: &target{name: "haproxy"},
			samples: []sample{{mCPU: 10, mErrors: 0}, {mCPU: 20, mErrors: 0}, {mCPU: 12, mErrors: 0}}},
		{load: l, target: &target{name: "broken"}, samples: []sample{missing(), missing(), missing()}},
		{load: l, target: &target{name: directTarget},
			samples: []sample{{mErrors: 0, mMachine: 20}, {mErrors: 0, mMachine: 20}, {mErrors: 0, mMachine: 20}}},
		{load: &load{name: "b", title: "changes", unit: "change", main: mLongest}, target: &target{name: "lictor"},
			samples: []sample{{mCPU: 500, mP50: 4e3, mP99: 8e3, mLongest: 9e3, mRSS: 1 << 20, mErrors: 0}}},
	}
}

func TestMarkdown(t *testing.T) {
	var out bytes.Buffer
	if err := someResults().markdown(&out, machine{CPU: "a processor",
		Missing: []string{"nginx: not installed"}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"a processor",
		"Not to be had: nginx: not installed",
		"| a <load> | lictor | 6.0 us/request | 0.50 | 50.0 us |",
		"| a <load> | lictor | - | - | - | 2.50 | 1.00 |",
		"| a <load> | haproxy | 12.0 us/request | 1.00 |",
		"| a <load> | broken | -/request | - |",
		"| changes | lictor | 4.0 ms | 8.0 ms | 9.0 ms | 500.0 us/change | 1.0 MB | 0 |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got no %q in\n%s", want, out.String())
		}
	}
}

func TestJSONHasNullForWhatIsMissing(t *testing.T) {
	var out bytes.Buffer
	if err := someResults().json(&out, machine{}); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Results []struct {
			Target  string
			Medians map[string]*float64
			Rounds  []map[string]*float64
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Results) != 5 || len(got.Results[0].Rounds) != 3 || *got.Results[0].Medians[mCPU] != 6 {
		t.Errorf("got %s", out.String())
	}
	if v, ok := got.Results[2].Medians[mErrors]; !ok || v != nil {
		t.Errorf("missing: got %v, want null", v)
	}
}

func TestSVGIsWellFormed(t *testing.T) {
	var out bytes.Buffer
	if err := someResults().svg(&out, machine{CPU: "a & b"}); err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(&out)
	rects := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			rects++
		}
	}
	if rects != 6 { // four in the legend, and a bar for each target that has figures
		t.Errorf("got %d rectangles, want 5", rects)
	}
}

func TestFigures(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{duration(12.34), "12.3 us"}, {duration(12340), "12.3 ms"}, {duration(1.5e6), "1.50 s"},
		{duration(math.NaN()), none},
		{size(300), "0.29 KB"}, {size(12 << 20), "12.0 MB"}, {amount(0), "0"}, {amount(2.5), "2.5"},
		{amount(12345.6), "12346"},
		{factor(0.456), "0.46"}, {factor(math.NaN()), none},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
