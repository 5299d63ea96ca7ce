package consul

import "testing"

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
		outer, all := CountElements([]byte(text))
		if got := [2]int{outer, all}; got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}
