package daemon

import "testing"

func TestCollectorPercent(t *testing.T) {
	for _, test := range []struct {
		services int
		gogc     string
		percent  int
		ours     bool
	}{
		{1, "", 100, true},
		{manyServices, "", 50, true},
		{manyServices, "200", 0, false}, // set by an operator
		{manyServices, "off", 0, false},
	} {
		percent, ours := collectorPercent(test.services, test.gogc)
		if percent != test.percent || ours != test.ours {
			t.Errorf("%d services, GOGC=%q: got %d, %v, want %d, %v",
				test.services, test.gogc, percent, ours, test.percent, test.ours)
		}
	}
}
