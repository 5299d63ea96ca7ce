package config

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// defaultInPage matches an argument and its default, as pages write them: `max_queue` (1024).
var defaultInPage = regexp.MustCompile("`([a-z_]+)` \\(([0-9][0-9a-z%]*)\\)")

// TestDefaultsInPagesAreTrue holds the defaults that pages name in passing to docs/configuration.md, which is their
// home. TestReferenceIsTrue holds that page to the code.
func TestDefaultsInPagesAreTrue(t *testing.T) {
	defaults := map[string][]string{} // of arguments by name; several blocks may have one of the same name
	for _, doc := range readReference(t) {
		for _, value := range code(doc.fields["Default"]) {
			defaults[doc.name] = append(defaults[doc.name], strings.Trim(value, `"`))
		}
	}
	found := 0
	for path, text := range pages(t) {
		for _, m := range defaultInPage.FindAllStringSubmatch(text, -1) {
			found++
			if name, value := m[1], m[2]; !slices.Contains(defaults[name], value) {
				t.Errorf("%s says that the default of %s is %s; %s says %v", path, name, value, reference,
					defaults[name])
			}
		}
	}
	if found < 15 {
		t.Errorf("%d defaults are found; does this test look for them in the right way?", found)
	}
}

// plotText matches what docs/bench.svg says: the name of a load, or of a target, or a ratio.
var plotText = regexp.MustCompile(`(?:<text[^>]*text-anchor="end">|<title>|<text[^>]*class="small">)([^<]+)<`)

// plotted returns the ratios in docs/bench.svg, which `make bench` writes, by load and target, and its second line:
// the machine that they were measured on.
func plotted(t *testing.T) (ratios map[string]map[string]float64, machine string) {
	t.Helper()
	ratios = map[string]map[string]float64{}
	load, target := "", ""
	for _, m := range plotText.FindAllStringSubmatch(readPage(t, "../docs/bench.svg"), -1) {
		value, err := strconv.ParseFloat(m[1], 64)
		switch {
		case machine == "":
			machine = m[1]
		case strings.HasPrefix(m[0], "<title>"):
			target = m[1]
		case !strings.Contains(m[0], "class="):
			load, ratios[m[1]] = m[1], map[string]float64{}
		case err == nil && load != "":
			ratios[load][target] = value
		}
	}
	return ratios, machine
}

// TestSpeedInReadmeIsThatOfThePlot holds the table of speeds in README.md, and the machine, to docs/bench.svg. When
// `make bench` has measured anew, copy bin/bench.svg there and correct the table.
func TestSpeedInReadmeIsThatOfThePlot(t *testing.T) {
	ratios, machine := plotted(t)
	_, section, _ := strings.Cut(readPage(t, "../README.md"), "\n## Speed\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "| "), " | ")
		if len(cells) != 3 || cells[0] == "load" {
			continue
		}
		rows++
		of, known := ratios[cells[0]]
		if !known {
			t.Errorf("docs/bench.svg has no load %q", cells[0])
			continue
		}
		for i, target := range []string{"lictor", "nginx"} {
			if want := strconv.FormatFloat(of[target], 'f', 2, 64); cells[i+1] != want {
				t.Errorf("README.md says %s for %s of %q, docs/bench.svg says %s", cells[i+1], target, cells[0], want)
			}
		}
	}
	if rows < 8 {
		t.Errorf("%d rows are found; does this test look for them in the right way?", rows)
	}
	parts := strings.Split(machine, ", ")
	if len(parts) < 3 {
		t.Fatalf("docs/bench.svg does not name the machine: %q", machine)
	}
	cpu, cores, kernel := parts[0], parts[1], strings.Join(strings.SplitN(parts[2], ".", 3)[:2], ".")
	for _, want := range []string{cpu, cores, kernel} {
		if !strings.Contains(section, want) {
			t.Errorf("README.md does not say that the speeds were measured with %q, as docs/bench.svg does", want)
		}
	}
}

// numberIn returns the number that the pattern's group matches in a page.
func numberIn(t *testing.T, path, pattern string) float64 {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(readPage(t, path))
	if m == nil {
		t.Fatalf("%s: nothing matches %q; does this test look for it in the right way?", path, pattern)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestMemoryAndStartAreTheSameEverywhere compares figures in README.md with the plot, and with docs/operations.md.
func TestMemoryAndStartAreTheSameEverywhere(t *testing.T) {
	ratios, _ := plotted(t)
	idle, start := ratios["3,000 idle connections"], ratios["start with 1,000 services"]
	const readme = "../README.md"
	lictor := numberIn(t, readme, `takes ([0-9.]+) KB`)
	haproxy, nginx := numberIn(t, readme, `HAProxy ([0-9.]+) KB`), numberIn(t, readme, `nginx ([0-9.]+) KB`)
	for _, tt := range []struct {
		what      string
		got, want float64
	}{
		{"memory of an idle connection, of HAProxy's", lictor / haproxy, idle["lictor"]},
		{"memory of an idle connection of nginx, of HAProxy's", nginx / haproxy, idle["nginx"]},
		{"start with 1,000 services, of HAProxy's", numberIn(t, readme, `is ([0-9.]+) times HAProxy's time`),
			start["lictor"]},
	} {
		if math.Abs(tt.got-tt.want) > 0.02*tt.want+0.005 {
			t.Errorf("%s: README.md comes to %.2f, docs/bench.svg says %.2f", tt.what, tt.got, tt.want)
		}
	}
	operations := numberIn(t, "../docs/operations.md", `idle TCP connection[^0-9]*([0-9.]+) KB`)
	if math.Round(10*lictor)/10 != operations {
		t.Errorf("an idle connection takes %v KB by README.md, and %v KB by docs/operations.md", lictor, operations)
	}
}
