package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"sync"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// permits returns nil if e, which listens on a Unix socket, may be an endpoint. Otherwise the error says why not. The
// socket is a file of this host, so an instance of another node can never be reached by its path.
func (r rules) permits(e *entry) error {
	socket := e.Service.SocketPath
	matches := func(pattern string) bool {
		ok, err := path.Match(pattern, socket)
		return ok && err == nil
	}
	switch {
	case len(r.socketPaths) == 0:
		return errors.New("listens on a Unix socket, and the consul block has no socket_paths that allow it")
	case !slices.ContainsFunc(r.socketPaths, matches):
		return fmt.Errorf("listens on the Unix socket %s, which socket_paths does not allow", socket)
	case r.here.err != nil:
		return fmt.Errorf("listens on a Unix socket, and it is not known whether its node is this one: %w", r.here.err)
	case !r.here.is(e.Node):
		return errors.New("listens on a Unix socket of another node")
	}
	return nil
}

// hasSocket reports whether e listens on a Unix socket.
func hasSocket(e *entry) bool { return e != nil && e.Service != nil && e.Service.SocketPath != "" }

// An ownNode is the node of the agent.
type ownNode struct {
	name, datacenter string
	err              error // why the node is not known; nil if it is known
}

// is reports whether n is the agent's node. Other datacenters and peers may have nodes of the same name.
func (o *ownNode) is(n *entryNode) bool {
	return n.PeerName == "" && n.Node == o.name && n.Datacenter == o.datacenter
}

// An agentNode finds out which node the agent is. It is safe for concurrent use, and its zero value is ready.
type agentNode struct {
	mu   sync.Mutex
	last ownNode // guarded by mu
}

// find asks the agent for its node. While the agent does not answer, the node of its last answer counts. Asking needs
// agent:read.
func (a *agentNode) find(ctx context.Context, client *consul.Client) ownNode {
	var self struct {
		Config struct{ NodeName, Datacenter string }
	}
	ctx, cancel := context.WithTimeout(ctx, originTimeout)
	defer cancel()
	err := client.Call(ctx, http.MethodGet, "/v1/agent/self", nil, nil, &self)
	if err == nil && self.Config.NodeName == "" {
		err = errors.New("the agent does not say its name")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil:
		a.last = ownNode{name: self.Config.NodeName, datacenter: self.Config.Datacenter}
	case a.last.name == "":
		a.last.err = err
	}
	return a.last
}

// forget forgets the node, because another agent answers now.
func (a *agentNode) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = ownNode{}
}
