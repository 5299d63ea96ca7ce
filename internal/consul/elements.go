package consul

import "errors"

// Bounds of what an answer takes in memory. Its bytes are bounded too, but "{}," is three bytes, and takes a hundred
// times as much once it is an instance.
const (
	// MinEntry is how many bytes each element of the outermost list must have on average. Consul's have some hundred.
	MinEntry = 64

	// MaxElements is how many elements all lists of an answer may have together. 10,000 instances with a hundred tags
	// and checks each have half as many.
	MaxElements = 2 << 20
)

// ErrTooManyElements is the error of an answer beyond these bounds.
var ErrTooManyElements = errors.New("answer with more items than its length is good for: not from Consul?")

// TooManyElements reports whether body, which is JSON, has more elements than the bounds allow. It does not check
// whether body is valid JSON.
func TooManyElements(body []byte) bool {
	outer, all := CountElements(body)
	return outer > len(body)/MinEntry+1 || all > MaxElements
}

// CountElements returns how many elements the outermost list in body has, and how many all lists have together. An
// empty list counts as one element.
func CountElements(body []byte) (outer, all int) {
	var lists []bool // for each container that is open: it is a list
	for i := 0; i < len(body); i++ {
		inList := len(lists) > 0 && lists[len(lists)-1]
		switch body[i] {
		case '"':
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
			continue
		case '[':
			lists = append(lists, true)
		case '{':
			lists = append(lists, false)
			continue
		case ']', '}':
			lists = lists[:max(len(lists)-1, 0)]
			continue
		case ',':
			if !inList {
				continue
			}
		default:
			continue
		}
		all++
		if len(lists) == 1 {
			outer++
		}
	}
	return outer, all
}
