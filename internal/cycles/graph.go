package cycles

import (
	"slices"

	"github.com/lictor-proxy/lictor/lb"
)

// A Link says that an endpoint of one service is a listener of another, or of the same: clients of From may come to To.
type Link struct {
	Network  lb.Network // of both services
	From, To string
}

// closing returns the links that close a cycle with links before them, and for each of these the services on the cycle,
// from From back to From. Links are given in order of precedence: one that closes a cycle is left out, and does not
// count for those after it.
func closing(links []Link) map[Link][]string {
	g := graph{}
	closed := map[Link][]string{}
	for _, l := range links {
		if path := g.path(node{l.Network, l.To}, node{l.Network, l.From}); path != nil {
			closed[l] = slices.Concat([]string{l.From}, path)
			continue
		}
		from := node{l.Network, l.From}
		g[from] = append(g[from], node{l.Network, l.To})
	}
	return closed
}

// A node is a service. TCP and UDP never meet, even if two services of one name follow each other in a reload.
type node struct {
	network lb.Network
	service string
}

// A graph has, for each service, those that its clients may come to next.
type graph map[node][]node

// path returns the services on a way between two of them, both included; nil if there is none.
func (g graph) path(from, to node) []string {
	before := map[node]node{from: {}} // how each was reached
	queue := []node{from}
	for len(queue) > 0 && queue[0] != to {
		for _, next := range g[queue[0]] {
			if _, seen := before[next]; !seen {
				before[next] = queue[0]
				queue = append(queue, next)
			}
		}
		queue = queue[1:]
	}
	if len(queue) == 0 {
		return nil
	}
	path := []string{to.service}
	for n := to; n != from; {
		n = before[n]
		path = append(path, n.service)
	}
	slices.Reverse(path)
	return path
}
