package cycles

import (
	"slices"

	"github.com/lictor-proxy/lictor/lb"
)

// A Link says that an endpoint of service From is a listener of service To, so clients of From may reach To. From and
// To may be the same service.
type Link struct {
	Network  lb.Network // network of both services
	From, To string
}

// closing returns the links that close a cycle with links before them. For each such link it returns the services on
// the cycle, from From back to From. Earlier links take precedence: a link that closes a cycle is left out, and is
// ignored for later links.
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

// A node is a service. The same name on TCP and on UDP is two nodes, even if one replaces the other in a reload.
type node struct {
	network lb.Network
	service string
}

// A graph holds, for each service, the services that its clients may reach next.
type graph map[node][]node

// path returns the services on a way from one node to another, including both. path returns nil if there is no way.
func (g graph) path(from, to node) []string {
	before := map[node]node{from: {}} // how each node was reached
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
