package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A parser parses the answers to one query. A parser keeps the instances of a long answer, with a digest of the bytes
// of each instance. From the next answer, the parser parses only the instances with changed bytes. Most answers with
// thousands of instances differ in one instance. A nil parser keeps nothing. A parser is not safe for concurrent use.
type parser struct {
	seed    maphash.Seed
	fields  fieldRule
	entries map[digest]*entry
	size    int // bytes of the last answer; zero: a short answer, or none
}

// A digest identifies the bytes of an entry.
type digest struct {
	sum  uint64
	size int
}

func newParser(fields fieldRule) *parser { return &parser{seed: maphash.MakeSeed(), fields: fields} }

// expects returns how many bytes the next answer may have. A result of zero means that the size is unknown.
func (f *parser) expects() int {
	if f == nil {
		return 0
	}
	return f.size
}

// entriesIn parses a body as the function entriesIn does, and also resolves the fields and trims the entries.
func (f *parser) entriesIn(body []byte) ([]*entry, error) {
	if f == nil {
		return entriesIn(body)
	}
	if len(body) > consul.SmallBody {
		return f.parse(body)
	}
	f.entries, f.size = nil, 0
	entries, err := entriesIn(body)
	if err == nil {
		err = f.fields.resolveAll(entries, body)
	}
	for _, e := range entries {
		e.trim()
	}
	return entries, err
}

// parse parses a long body.
func (f *parser) parse(body []byte) ([]*entry, error) {
	parts, err := split(body, len(body)/consul.MinEntry+1)
	if err == errOddList { // let encoding/json say what is wrong
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
				return nil, consul.ErrTooManyElements
			}
			if err := json.Unmarshal(part, &e); err != nil {
				return nil, fmt.Errorf("answer cannot be read: %w", err)
			}
			if err := f.fields.resolve(e, part); err != nil {
				return nil, err
			}
			e.trim()
		}
		entries[i], next[d] = e, e
	}
	f.entries, f.size = next, len(body)
	return entries, nil
}

// elementsIn returns the number of elements of all JSON lists in part.
func elementsIn(part []byte) int {
	_, all := consul.CountElements(part)
	return all
}

// errOddList is the error of split for text that is not a JSON list.
var errOddList = errors.New("answer cannot be read: not a list of instances")

// A span is the position of an element in a body. No body is longer than consul.MaxBody.
type span struct{ begin, end int32 }

// split returns the positions of the elements of a JSON list. split looks only at brackets, strings and commas, and
// does not check the JSON between them. The errors of split are consul.ErrTooManyElements, if there are more than most
// elements, and errOddList.
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
				return nil, consul.ErrTooManyElements
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

// isSpace reports whether b is white space in JSON.
func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }
