package discovery

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
)

func TestElements(t *testing.T) {
	for text, want := range map[string][2]int{
		``:                              {0, 0},
		`[]`:                            {1, 1},
		`[{}]`:                          {1, 1},
		`[{"a":1,"b":2},{},null]`:       {3, 3},
		`[{"a":["x","y"]},{"a":[1,2]}]`: {2, 6},
		`["a,b","c\",[d",{"e":"],["}]`:  {3, 3},
		`]]}},,[1,2`:                    {2, 2},
		`["unfinished\`:                 {1, 1},
		`[[[[]]],[[1],[2]]]`:            {2, 9},
	} {
		outer, all := elements([]byte(text))
		if got := [2]int{outer, all}; got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

// A few megabytes can be millions of items, each of which is worth a hundred bytes and more here.
func TestAnswerOfManyTinyItemsIsRefusedBeforeItFillsTheMemory(t *testing.T) {
	c := &client{bodyLimit: maxBody, long: make(chan struct{}, maxLong)}
	for name, body := range map[string]string{
		"instances":        "[" + strings.Repeat("{},", 4<<20) + "{}]",
		"nulls":            "[" + strings.Repeat("null,", 2<<20) + "null]",
		"words":            "[" + strings.Repeat(`"",`, 4<<20) + `""]`,
		"checks":           `[{"Checks":[` + strings.Repeat("{},", 4<<20) + `{}]}]`,
		"few, short":       "[" + strings.Repeat("{},", 60_000) + "{}]",
		"a prepared query": `{"Nodes":[` + strings.Repeat("{},", 4<<20) + "{}]}",
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			prepared := strings.HasPrefix(name, "a prep")
			_, _, err := c.decode(context.Background(), strings.NewReader(body), prepared, newFormer())
			runtime.ReadMemStats(&after)
			if !errors.Is(err, errTooMany) {
				t.Errorf("got %v, want it refused", err)
			}
			// The body is read into a buffer that grows.
			if took, most := after.TotalAlloc-before.TotalAlloc, uint64(8*len(body)+1<<20); took > most {
				t.Errorf("%d bytes took %d in memory, want at most %d", len(body), took, most)
			}
		})
	}
}
