package discovery

import "sync/atomic"

// A fact is something that is true or false, and may not be known yet. Safe for concurrent use.
type fact struct{ state atomic.Int32 }

// The states of a fact.
const (
	unknown int32 = iota
	wondered
	isFalse
	isTrue
)

// learn notes what is true, and tells whether that was unknown.
func (f *fact) learn(is bool) bool {
	state := isFalse
	if is {
		state = isTrue
	}
	return f.state.Swap(state) < isFalse
}

func (f *fact) is() (is, known bool) {
	state := f.state.Load()
	return state == isTrue, state >= isFalse
}

// wonder tells the first who asks, and only that one, that nobody knows yet.
func (f *fact) wonder() bool { return f.state.CompareAndSwap(unknown, wondered) }
