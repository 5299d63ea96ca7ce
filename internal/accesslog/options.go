// Package accesslog writes a line for each connection and session that has ended.
package accesslog

import "io"

// Options are those of an access log in force.
type Options struct {
	Path   string
	JSON   bool // else text
	Sample int  // one connection in so many
}

// Outputs are what this process prints to, where /dev/stdout and /dev/stderr lead.
type Outputs struct{ Out, Err io.Writer }

// A Change is a change of the access log that has been prepared: it is done, or else undone.
type Change struct{ commit, abort func() }

// Commit makes the change.
func (c Change) Commit() {
	if c.commit != nil {
		c.commit()
	}
}

// Abort gives up what has been prepared.
func (c Change) Abort() {
	if c.abort != nil {
		c.abort()
	}
}
