package lb

import "math"

// numCells is the number of cells, a power of two.
const numCells = 1024

// cells divide the clients of a large set by the hashes of the clients. The source hash policy scores a client only
// with the members of the client's cell.
//
// With n members, a member is in manyMembers/n of all cells. A member with a weight above the mean is in more cells, in
// proportion. The fewer cells a member is in, the more its weight counts there, so that its share of all clients is
// right. The seed of a member yields an order of all cells, and the member is in the first cells of that order. If n
// changes by one, each member's number of cells changes by one part in n, so few clients move. If n equals manyMembers,
// each member is in all cells.
type cells struct {
	offsets [numCells + 1]int32 // start of each cell in indexes
	indexes []int32             // indexes of members, cell by cell
}

// newCells returns the cells for nodes. newCells raises the weights of nodes to the weights that count within a cell.
func newCells(nodes []hashNode) *cells {
	n, total := float64(len(nodes)), 0.0
	for i := range nodes {
		total += nodes[i].weight
	}
	c := &cells{}
	counts := make([]int, len(nodes))
	for i := range nodes {
		node := &nodes[i]
		part := min(1, manyMembers/n*max(1, node.weight*n/total))
		// Round a fraction up for that fraction of the members, and down for the others.
		count := int(math.Floor(part*numCells + float64(node.seed>>11)/(1<<53)))
		counts[i] = min(max(count, 1), numCells)
		node.weight *= numCells / float64(counts[i])
		eachCell(node.seed, counts[i], func(cell int) { c.offsets[cell+1]++ })
	}
	for i := range numCells {
		c.offsets[i+1] += c.offsets[i]
	}
	c.indexes = make([]int32, c.offsets[numCells])
	next := c.offsets
	for i, count := range counts {
		eachCell(nodes[i].seed, count, func(cell int) {
			c.indexes[next[cell]] = int32(i)
			next[cell]++
		})
	}
	return c
}

// eachCell calls f with the first count cells in the order that seed yields.
func eachCell(seed uint64, count int, f func(cell int)) {
	order := mix(seed)
	cell, step := order%numCells, order/numCells|1 // an odd step reaches all cells
	for range count {
		f(int(cell))
		cell = (cell + step) % numCells
	}
}

// indexesFor returns the indexes of the members in the cell of a client. client is the hash of the client's address.
func (c *cells) indexesFor(client uint64) []int32 {
	// Hash the client again, because the scores of members depend on the first hash.
	cell := mix(client) % numCells
	return c.indexes[c.offsets[cell]:c.offsets[cell+1]]
}
