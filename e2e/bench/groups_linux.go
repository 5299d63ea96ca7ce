package main

import (
	"errors"

	"github.com/lictor-proxy/lictor/internal/testcgroup"
)

// groups are the control groups of the bench. Both have the same parent, because the kernel does some work for each
// level when threads wait and wake up.
type groups struct {
	kernel *testcgroup.Group // of clients of a kernel path
	rest   *testcgroup.Group // of the bench otherwise, and of all that it starts
}

// newGroups makes the groups. Call enter before anything is started.
func newGroups() (*groups, error) {
	kernel, err := testcgroup.New()
	if err != nil {
		return nil, err
	}
	rest, err := testcgroup.New()
	if err != nil {
		return nil, errors.Join(err, kernel.Remove())
	}
	return &groups{kernel, rest}, nil
}

// enter moves this process into the group of all that are no clients of a kernel path.
func (g *groups) enter() error { return g.rest.Enter() }

// as makes f a client of a kernel path.
func (g *groups) as(f func() (sample, error)) (sample, error) {
	if err := g.kernel.Enter(); err != nil {
		return nil, err
	}
	s, err := f()
	return s, errors.Join(err, g.enter())
}

// remove removes the groups. All that this process has started must have ended.
func (g *groups) remove() error { return errors.Join(g.kernel.Remove(), g.rest.Remove()) }
