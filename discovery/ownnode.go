package discovery

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// An ownNode is the node of the agent.
type ownNode struct {
	name, datacenter string
	locality         locality
	meta             map[string]string // must not be changed
	err              error             // why the node is not known; nil if it is known
}

// is reports whether n is the agent's node. Other datacenters and peers may have nodes of the same name.
func (o *ownNode) is(n *entryNode) bool {
	return n.PeerName == "" && n.Node == o.name && n.Datacenter == o.datacenter
}

// An agentNode finds out which node the agent is. It is safe for concurrent use, and its zero value is ready.
type agentNode struct {
	asking sync.Mutex // held by the caller of recent that asks
	mu     sync.Mutex
	last   ownNode   // guarded by mu
	asked  time.Time // when the agent was last asked; guarded by mu
}

// nodeAge is how long recent relies on an answer of the agent, and nodeRetry on a failure.
const (
	nodeAge   = time.Minute
	nodeRetry = 5 * time.Second
)

// find asks the agent for its node. While the agent does not answer, the node of its last answer counts. Asking needs
// agent:read.
func (a *agentNode) find(ctx context.Context, client *consul.Client) ownNode {
	var self struct {
		Config struct{ NodeName, Datacenter string }
		Meta   map[string]string

		DebugConfig struct{ Locality *locality }
	}
	ctx, cancel := context.WithTimeout(ctx, originTimeout)
	defer cancel()
	err := client.Call(ctx, http.MethodGet, "/v1/agent/self", nil, nil, &self)
	if err == nil && self.Config.NodeName == "" {
		err = errors.New("the agent does not say its name")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = time.Now()
	switch {
	case err == nil:
		a.last = ownNode{name: self.Config.NodeName, datacenter: self.Config.Datacenter, meta: self.Meta}
		if l := self.DebugConfig.Locality; l != nil {
			a.last.locality = *l
		}
	case a.last.name == "":
		a.last.err = err
	}
	return a.last
}

// recent is find for callers that can use an answer of the last minute. Many callers ask the agent once.
func (a *agentNode) recent(ctx context.Context, client *consul.Client) ownNode {
	a.asking.Lock()
	defer a.asking.Unlock()
	a.mu.Lock()
	last, asked := a.last, a.asked
	a.mu.Unlock()
	age := nodeAge
	if last.err != nil {
		age = nodeRetry
	}
	if !asked.IsZero() && time.Since(asked) < age {
		return last
	}
	return a.find(ctx, client)
}

// forget forgets the node, because another agent answers now.
func (a *agentNode) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last, a.asked = ownNode{}, time.Time{}
}
