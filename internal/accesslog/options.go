// Package accesslog writes a line for each connection and session that has ended.
package accesslog

import "github.com/lictor-proxy/lictor/internal/asyncwriter"

// Options are those of an access log in force.
type Options struct {
	Path   string
	JSON   bool // else text
	Sample int  // one connection in so many
}

// Outputs are what this process prints to, where /dev/stdout and /dev/stderr lead.
type Outputs struct{ Out, Err *asyncwriter.Writer }

// A Change of the access log has been prepared. It is committed or aborted, once. The zero Change changes nothing.
type Change struct{ commit, abort func() }

// Commit puts the change in force.
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
