// Package accesslog writes a line for each connection and each UDP session that has ended.
package accesslog

import "github.com/lictor-proxy/lictor/internal/asyncwriter"

// Options configure the access log.
type Options struct {
	Path   string
	JSON   bool // false means text
	Sample int  // one of this many connections is logged
}

// Outputs are the stdout and stderr of this process, to which /dev/stdout and /dev/stderr lead.
type Outputs struct{ Out, Err *asyncwriter.Writer }

// A Change is a prepared change of the access log. The Change must be committed or aborted exactly once. The zero
// Change does nothing.
type Change struct{ commit, abort func() }

// Commit puts the change in force.
func (c Change) Commit() {
	if c.commit != nil {
		c.commit()
	}
}

// Abort discards the prepared change.
func (c Change) Abort() {
	if c.abort != nil {
		c.abort()
	}
}
