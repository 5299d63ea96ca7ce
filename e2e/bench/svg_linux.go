package main

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"math"
)

// Dimensions of the plot, in pixels.
const (
	plotWidth  = 860
	plotLeft   = 290 // left end of the bars
	plotRight  = 70  // space for the figures after the bars
	barHeight  = 11
	groupSpace = 14
	plotTop    = 66
	mostRatio  = 2.0 // longer bars are cut; their figure shows the true value
)

// barColours are visible on white and on black.
var barColours = map[string]string{
	lictorTarget: "#2f7ed8", kernelTarget: "#1b9e77", "lictor-portable": "#8ab8ea", "haproxy": "#9a9a9a",
	"haproxy-splice": "#bdbdbd", "nginx": "#d98c3f",
}

const otherColour = "#a678b8"

// svg writes a bar plot of the main metric of each load, as a ratio to the baseline. Shorter bars are better.
func (rs results) svg(w io.Writer, m machine) error {
	var bars bytes.Buffer
	y := plotTop
	var last *load
	for _, r := range rs {
		ratio := rs.ratio(r, r.load.main)
		if math.IsNaN(ratio) {
			continue
		}
		if r.load != last {
			if last != nil {
				y += groupSpace
			}
			last = r.load
			fmt.Fprintf(&bars, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", plotLeft-8, y+barHeight-1,
				html.EscapeString(r.load.title))
			fmt.Fprintf(&bars, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" class=\"small\">%s</text>\n", plotLeft-8,
				y+2*barHeight+1, measureOf(r.load))
		}
		bar(&bars, y, r.target.name, ratio)
		y += barHeight + 2
	}
	height := y + 24
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d"
  font-family="sans-serif" font-size="12" fill="#808080">
<style>.small{font-size:10px}</style>
<text x="8" y="18" font-size="14">Cost of the same work, baseline = 1 (HAProxy; nginx for UDP); shorter is better</text>
<text x="8" y="34" class="small">%s, %d cores, Linux %s, commit %s</text>
`, plotWidth, height, plotWidth, height,
		html.EscapeString(m.CPU), m.Cores, html.EscapeString(m.Kernel), html.EscapeString(m.Commit))
	rs.legend(w)
	x := plotLeft + length(1)
	fmt.Fprintf(w, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"#808080\" stroke-dasharray=\"3 3\"/>\n",
		x, plotTop-6, x, height-16)
	_, err := fmt.Fprintf(w, "%s</svg>\n", bars.Bytes())
	return err
}

func measureOf(l *load) string {
	switch l.main {
	case mPairRSS:
		return "resident memory a pair"
	case mAdded:
		return "processor time added"
	case mOpen:
		return "time until all listeners are open"
	}
	return "processor time per " + l.unit
}

// length returns the length of the bar for a ratio, in pixels.
func length(ratio float64) int {
	return int(min(max(ratio, 0), mostRatio) / mostRatio * (plotWidth - plotLeft - plotRight))
}

func bar(w io.Writer, y int, target string, ratio float64) {
	fmt.Fprintf(w, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"><title>%s</title></rect>\n",
		plotLeft, y, max(length(ratio), 1), barHeight, colour(target), html.EscapeString(target))
	fmt.Fprintf(w, "<text x=\"%d\" y=\"%d\" class=\"small\">%.2f</text>\n",
		plotLeft+length(ratio)+5, y+barHeight-2, ratio)
}

func colour(target string) string {
	if c := barColours[target]; c != "" {
		return c
	}
	return otherColour
}

// legend writes the name and colour of each target once.
func (rs results) legend(w io.Writer) {
	x := plotLeft
	seen := map[string]bool{}
	for _, r := range rs {
		name := r.target.name
		if seen[name] {
			continue
		}
		seen[name] = true
		fmt.Fprintf(w, "<rect x=\"%d\" y=\"42\" width=\"10\" height=\"10\" fill=\"%s\"/><text x=\"%d\" y=\"51\" "+
			"class=\"small\">%s</text>\n",
			x, colour(name), x+14, html.EscapeString(name))
		x += 30 + 6*len(name)
	}
}
