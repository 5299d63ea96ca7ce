package consul

import "errors"

// Limits of the memory for an answer. The answer's size in bytes is not enough, because "{}," is three bytes and needs
// a hundred times as much memory as an instance.
const (
	// MinEntry is the minimum average size of the elements in the outermost list, in bytes. Consul's elements have some
	// hundred bytes.
	MinEntry = 64

	// MaxElements is the maximum number of elements in all lists of an answer together. An answer with 10,000
	// instances, each with a hundred tags and checks, has half as many.
	MaxElements = 2 << 20
)

// ErrTooManyElements is the error for an answer with more elements than MinEntry and MaxElements allow.
var ErrTooManyElements = errors.New("the answer has too many items, or items too small for Consul's: is this Consul?")

// TooManyElements reports whether body, which is JSON, has more elements than the limits allow. TooManyElements does
// not check that the JSON is valid.
func TooManyElements(body []byte) bool {
	outer, all := CountElements(body)
	return outer > len(body)/MinEntry+1 || all > MaxElements
}

// CountElements returns the number of elements in the outermost list of body, and in all lists together. An empty list
// counts as one element.
func CountElements(body []byte) (outer, all int) {
	var lists []bool // for each open container: whether it is a list
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
