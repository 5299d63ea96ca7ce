package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A former is what is kept of the last answer to a query, so that of the next one only what is different must be
// parsed: most answers for thousands of instances are what they were but for one. It keeps long answers only, and
// nothing of the bytes but a digest of each instance's. Not safe for concurrent use; a nil former keeps nothing.
type former struct {
	seed    maphash.Seed
	entries map[digest]*entry
	size    int // bytes of the last answer; zero: it was short
}

// A digest stands for the bytes of an entry.
type digest struct {
	sum  uint64
	size int
}

func newFormer() *former { return &former{seed: maphash.MakeSeed()} }

// expects returns how many bytes the next answer may have.
func (f *former) expects() int {
	if f == nil {
		return 0
	}
	return f.size
}

// entriesIn reads one JSON list and nothing after it, as the function entriesIn does, and trims what is in it.
func (f *former) entriesIn(body []byte) ([]*entry, error) {
	if f == nil {
		return entriesIn(body)
	}
	if len(body) > consul.SmallBody {
		return f.parse(body)
	}
	f.entries, f.size = nil, 0
	entries, err := entriesIn(body)
	for _, e := range entries {
		e.trim()
	}
	return entries, err
}

// parse is entriesIn for a body of any length.
func (f *former) parse(body []byte) ([]*entry, error) {
	parts, err := split(body, len(body)/consul.LeastEntry+1)
	if err == errOddList { // encoding/json says what is wrong with it
		if _, wrong := entriesIn(body); wrong != nil {
			err = wrong
		}
	}
	if err != nil {
		return nil, err
	}
	entries := make([]*entry, len(parts))
	next := make(map[digest]*entry, len(parts))
	elements := 0
	for i, s := range parts {
		part := body[s.begin:s.end]
		d := digest{maphash.Bytes(f.seed, part), len(part)}
		e, known := f.entries[d]
		if !known {
			if elements += elementsIn(part); elements > consul.MaxElements {
				return nil, consul.ErrTooMany
			}
			if err := json.Unmarshal(part, &e); err != nil {
				return nil, fmt.Errorf("answer cannot be read: %w", err)
			}
			e.trim()
		}
		entries[i], next[d] = e, e
	}
	f.entries, f.size = next, len(body)
	return entries, nil
}

// elementsIn counts the elements of all lists in a part of a list.
func elementsIn(part []byte) int {
	_, all := consul.Elements(part)
	return all
}

// errOddList is of a list that cannot be split.
var errOddList = errors.New("answer cannot be read: not a list of instances")

// A span is where an element is in a body, which is never longer than consul.MaxBody.
type span struct{ begin, end int32 }

// split returns where the elements of a list in JSON are, or consul.ErrTooMany if there are more than most. It looks at
// nothing but brackets, strings and commas: whether what is between them is JSON is for others to find out. The other
// error is errOddList.
func split(body []byte, most int) (parts []span, err error) {
	begin, end := 0, len(body)
	for begin < end && isSpace(body[begin]) {
		begin++
	}
	for begin < end && isSpace(body[end-1]) {
		end--
	}
	if end-begin < 2 || body[begin] != '[' || body[end-1] != ']' {
		return nil, errOddList
	}
	begin, end = begin+1, end-1
	if len(bytes.Trim(body[begin:end], " \t\n\r")) == 0 {
		return nil, nil
	}
	depth := 0
	for i := begin; i < end; i++ {
		switch body[i] {
		case '"':
			for i++; i < end && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth < 0 {
				return nil, errOddList
			}
		case ',':
			if depth > 0 {
				continue
			}
			if len(parts)+1 == most {
				return nil, consul.ErrTooMany
			}
			parts = append(parts, span{int32(begin), int32(i)})
			begin = i + 1
		}
	}
	if depth > 0 {
		return nil, errOddList
	}
	return append(parts, span{int32(begin), int32(end)}), nil
}

// isSpace reports whether JSON takes a byte between its elements for a space.
func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }
