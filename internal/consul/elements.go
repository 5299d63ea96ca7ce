package consul

import "errors"

// Bounds of what an answer comes to in memory, besides that of its bytes: "{}," is three of those, and a hundred times as many once it is an
// instance.
const (
	LeastEntry  = 64      // bytes that an instance takes, at least, on average; Consul's take some hundred
	MaxElements = 2 << 20 // of all lists in an answer: 10,000 instances with a hundred tags and checks each have half as many
)

var ErrTooMany = errors.New("answer with more items than its length is good for: not from Consul?")

// TooMany tells whether body, a list in JSON, has more elements than is reasonable. What is not JSON is for others to find out.
func TooMany(body []byte) bool {
	outer, all := Elements(body)
	return outer > len(body)/LeastEntry+1 || all > MaxElements
}

// Elements counts the elements of the outermost list, and of all lists; an empty list counts as one element.
func Elements(body []byte) (outer, all int) {
	var lists []bool // the containers that are open: is it a list?
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
