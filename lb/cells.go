package lb

import "math"

// numCells is how many cells there are. It is a power of two.
const numCells = 1024

// cells share out the clients of a large set, by their hashes, so that each is scored with some of the members only:
// those in its cell.
//
// A member is in a part of all cells: of n members in manyMembers/n of them, or in more if its weight is above the
// mean, in proportion. The fewer cells a member is in, the more its weight counts there, so that its share of all
// clients is right. In which cells it is follows from its own seed: the first few in an order of cells of its own. When
// n changes by one, the number of a member's cells changes by a part in n, so few clients notice. Of manyMembers, each
// is in all cells.
type cells struct {
	offsets [numCells + 1]int32 // of each cell in list
	indexes []int32             // places of members, cell by cell
}

// newCells makes the cells for entrants, and raises their weights to what they are within cells.
func newCells(entrants []hashNode) *cells {
	n, total := float64(len(entrants)), 0.0
	for i := range entrants {
		total += entrants[i].weight
	}
	c := &cells{}
	counts := make([]int, len(entrants))
	for i := range entrants {
		e := &entrants[i]
		part := min(1, manyMembers/n*max(1, e.weight*n/total))
		// A fraction of a cell is one whole cell for as many of the members.
		count := int(math.Floor(part*numCells + float64(e.seed>>11)/(1<<53)))
		counts[i] = min(max(count, 1), numCells)
		e.weight *= numCells / float64(counts[i])
		eachCell(e.seed, counts[i], func(cell int) { c.offsets[cell+1]++ })
	}
	for i := range numCells {
		c.offsets[i+1] += c.offsets[i]
	}
	c.indexes = make([]int32, c.offsets[numCells])
	next := c.offsets
	for i, count := range counts {
		eachCell(entrants[i].seed, count, func(cell int) {
			c.indexes[next[cell]] = int32(i)
			next[cell]++
		})
	}
	return c
}

// eachCell calls f with the first count cells in the order of a member.
func eachCell(seed uint64, count int, f func(cell int)) {
	order := mix(seed)
	cell, step := order%numCells, order/numCells|1 // an odd step comes to all cells
	for range count {
		f(int(cell))
		cell = (cell + step) % numCells
	}
}

// members returns the places of the members that are in a client's cell.
func (c *cells) members(client uint64) []int32 {
	// Not the client's hash itself: members are scored by that.
	cell := mix(client) % numCells
	return c.indexes[c.offsets[cell]:c.offsets[cell+1]]
}
