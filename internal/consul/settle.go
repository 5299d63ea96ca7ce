package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Settle moves the client to the first address, in the order of Options, that answers. It stays where it is if the
// present address comes before all others that answer. why says why the caller asks, for operators; empty means the
// start of the process. If no address of the present cluster answers, Settle moves to one of another cluster, except at
// the start. Settle reports whether the client has moved.
func (c *Client) Settle(ctx context.Context, why string) bool {
	if !c.movable || !c.take(ctx) {
		return false
	}
	defer c.giveBack()
	c.mu.Lock()
	clear(c.told)
	c.mu.Unlock()
	var stranger *site
	var reasons []string
	here := c.at.Load()
	for _, a := range c.agents {
		if a == here.agent {
			err := c.try(ctx, here, tryTimeout)
			if err == nil {
				return false
			}
			reasons = append(reasons, fmt.Sprintf("%s: %s", here, OneLine(err.Error())))
		}
		for _, s := range slices.DeleteFunc(c.sites(ctx, a), here.is) {
			err := c.examine(ctx, s)
			if err != nil || ctx.Err() != nil {
				s.closeIdle()
			}
			switch {
			case ctx.Err() != nil:
				return false
			case err == nil:
				c.moveTo(s, settleReason(why, reasons))
				return true
			case stranger == nil && errors.As(err, new(*StrangerError)):
				stranger = s
			}
			reasons = append(reasons, fmt.Sprintf("%s: %s", s, OneLine(err.Error())))
		}
	}
	if stranger == nil || why == "" {
		return false
	}
	c.moveTo(stranger, settleReason(why, reasons))
	return true
}

// settleReason returns the text that says why Settle has moved the client.
func settleReason(why string, reasons []string) string {
	if why == "" {
		why = "the addresses before it do not answer at the start"
	}
	if len(reasons) > 0 {
		why += " (" + strings.Join(reasons, "; ") + ")"
	}
	return why
}

// A Condition says whether Consul answers at an address.
type Condition struct {
	Address string // with the IP address of a host name
	Err     error  // why the client would not use the address; nil: it could
}

// Survey asks all addresses, in the order of Options, and one after the other. The client stays where it is.
func (c *Client) Survey(ctx context.Context) (all []Condition) {
	var here Cluster // of the first that answers
	for _, a := range c.agents {
		for _, s := range c.sites(ctx, a) {
			err := c.try(ctx, s, tryTimeout)
			if err == nil {
				found, _ := c.clusterOf(ctx, s) // what is not known does not differ
				if here == (Cluster{}) {
					here = found
				}
				if here.differs(found) {
					err = &StrangerError{Here: here, There: found}
				}
			}
			all = append(all, Condition{s.String(), err})
			s.closeIdle()
		}
	}
	return all
}
