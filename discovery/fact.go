package discovery

import "sync/atomic"

// A fact is true, false, or not yet known. A fact is safe for concurrent use.
type fact struct{ state atomic.Int32 }

// The states of a fact.
const (
	unknown int32 = iota
	claimed
	isFalse
	isTrue
)

// learn records whether the fact is true, and reports whether that was unknown before.
func (f *fact) learn(is bool) bool {
	state := isFalse
	if is {
		state = isTrue
	}
	return f.state.Swap(state) < isFalse
}

// is returns whether the fact is true, and whether that is known.
func (f *fact) is() (is, known bool) {
	state := f.state.Load()
	return state == isTrue, state >= isFalse
}

// claim returns true to exactly one caller while the fact is unknown. The caller that gets true should find out.
func (f *fact) claim() bool { return f.state.CompareAndSwap(unknown, claimed) }

// forget makes the fact unknown.
func (f *fact) forget() { f.state.Store(unknown) }
