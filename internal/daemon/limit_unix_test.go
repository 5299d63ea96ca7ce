//go:build unix

package daemon

import "testing"

func TestFilesInLimits(t *testing.T) {
	const head = "Limit                     Soft Limit           Hard Limit           Units     \n"
	for text, want := range map[string]int64{
		head + "Max processes   95   95   processes \nMax open files   1024   524288   files     \n": 1024,
		head + "Max open files   unlimited   unlimited   files     \n":                               0,
		head: 0,
		"":   0,
	} {
		if got := filesInLimits(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}
