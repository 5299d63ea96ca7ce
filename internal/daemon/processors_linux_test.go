package daemon

import "testing"

func TestCountInList(t *testing.T) {
	for text, want := range map[string]int{"0": 1, "0-3": 4, "0-3,8,10-11": 7, "": 0, "x": 0, "3-1": 0, "1,": 0} {
		if got := countInList(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}
