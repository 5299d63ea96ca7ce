package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A catalog stands in for a Consul agent. It answers health queries with the same instances for every service. A query
// with the current index waits for a change or for its timeout.
type catalog struct {
	mu        sync.Mutex
	index     uint64
	instances []netip.AddrPort
	changed   chan struct{} // closed by the next change
}

func newCatalog(instances []netip.AddrPort) *catalog {
	return &catalog{index: 1, instances: instances, changed: make(chan struct{})}
}

// set replaces the instances.
func (c *catalog) set(instances []netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	c.instances = instances
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *catalog) get() (uint64, []netip.AddrPort, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index, c.instances, c.changed
}

// ServeHTTP implements http.Handler.
func (c *catalog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const health = "/v1/health/service/"
	name, ok := strings.CutPrefix(r.URL.Path, health)
	if !ok {
		fmt.Fprintln(w, `""`) // the request only checks that the agent lives
		return
	}
	asked, _ := strconv.ParseUint(r.FormValue("index"), 10, 64) // a missing index is zero, as in Consul
	wait, err := time.ParseDuration(r.FormValue("wait"))
	if err != nil {
		wait = time.Minute
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	index, instances, changed := c.get()
	for over := false; asked != 0 && index <= asked && !over; index, instances, changed = c.get() {
		select {
		case <-changed:
		case <-timer.C:
			over = true
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(index, 10))
	w.Header().Set("X-Consul-KnownLeader", "true")
	_ = json.NewEncoder(w).Encode(entries(name, instances)) // ignore errors: the client is gone
}

// entries returns instances in the form of Consul's API.
func entries(name string, instances []netip.AddrPort) []any {
	all := []any{}
	for _, addr := range instances {
		all = append(all, map[string]any{
			"Node": map[string]any{"Node": "bench", "Address": "127.0.0.1"},
			"Service": map[string]any{
				"ID": addr.String(), "Service": name, "Address": addr.Addr().String(), "Port": addr.Port(),
				"Weights": map[string]int{"Passing": 1, "Warning": 1},
			},
			"Checks": []any{map[string]any{"CheckID": "alive", "Status": "passing"}},
		})
	}
	return all
}
