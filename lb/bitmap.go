package lb

import (
	"math/bits"
	"sync/atomic"
)

// A bitmap is a set of small numbers, with their count. The methods of a bitmap may be called concurrently.
type bitmap struct {
	words []atomic.Uint64
	count atomic.Int64
}

// fullBitmap returns the set of the numbers from 0 to n-1.
func fullBitmap(n int) *bitmap {
	b := &bitmap{words: make([]atomic.Uint64, (n+63)/64)}
	for i := range b.words {
		b.words[i].Store(^uint64(0))
	}
	if rest := n % 64; rest > 0 {
		b.words[n/64].Store(1<<rest - 1)
	}
	b.count.Store(int64(n))
	return b
}

// set adds i to the set if in is true, and removes i otherwise.
func (b *bitmap) set(i int, in bool) {
	word, bit := &b.words[i/64], uint64(1)<<(i%64)
	switch {
	case in && word.Or(bit)&bit == 0:
		b.count.Add(1)
	case !in && word.And(^bit)&bit != 0:
		b.count.Add(-1)
	}
}

// has reports whether i is in the set.
func (b *bitmap) has(i int) bool { return b.words[i/64].Load()>>(i%64)&1 != 0 }

// nextSet returns the lowest number in the set that is at least i. nextSet returns -1 if there is no such number.
func (b *bitmap) nextSet(i int) int {
	for w := i / 64; w < len(b.words); w++ {
		word := b.words[w].Load()
		if w == i/64 {
			word &= ^uint64(0) << (i % 64)
		}
		if word != 0 {
			return w*64 + bits.TrailingZeros64(word)
		}
	}
	return -1
}
