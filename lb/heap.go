package lb

// The functions in this file keep a binary min-heap of numbers, ordered by less. These functions replace
// container/heap, which allocates memory for each number that is pushed.

// heapify reorders h into a heap.
func heapify(h []int32, less func(i, j int32) bool) {
	for i := len(h)/2 - 1; i >= 0; i-- {
		sink(h, less, i)
	}
}

// push adds x to a heap. push allocates memory only if the capacity of the slice is used up.
func push(heap *[]int32, less func(i, j int32) bool, x int32) {
	h := append(*heap, x)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !less(h[i], h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	*heap = h
}

// pop removes the least number from a heap, and returns it. The heap must not be empty.
func pop(heap *[]int32, less func(i, j int32) bool) int32 {
	h := *heap
	x := h[0]
	n := len(h) - 1
	h[0] = h[n]
	*heap = h[:n]
	sink(*heap, less, 0)
	return x
}

// sink moves the number at index i down a heap until the heap is in order again.
func sink(h []int32, less func(i, j int32) bool, i int) {
	for {
		least, l := i, 2*i+1
		if l < len(h) && less(h[l], h[least]) {
			least = l
		}
		if l+1 < len(h) && less(h[l+1], h[least]) {
			least = l + 1
		}
		if least == i {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}
