package config

import (
	"slices"

	"github.com/zclconf/go-cty/cty"
)

// query reads a service's consul block; b is nil if there is none.
func (l *loader) query(b *block, name string) *ConsulQuery {
	q := &ConsulQuery{Service: name, Statuses: []string{statusPassing}, MaxDrop: DefaultMaxDrop, DropHold: DefaultDropHold}
	if b == nil {
		return q
	}
	if v, ok := b.text("service"); ok {
		q.Service = v
	}
	q.Datacenter, _ = b.text("datacenter")
	q.Near, _ = b.text("near")
	var ok bool
	if q.Filter, ok = b.text("filter"); ok {
		q.FilterRange = *b.rangeOf("filter")
	}
	q.Tags = b.texts("tags", `["v2"]`, "tag")
	if b.has("statuses") {
		q.Statuses = b.statuses()
	}
	q.MaxDrop = b.integer("max_drop", DefaultMaxDrop, 0, 100)
	q.DropHold = b.duration("drop_hold", DefaultDropHold, zeroAllowed)
	return q
}

// The statuses of instances that may get traffic.
const (
	statusPassing = "passing"
	statusWarning = "warning"
)

// statuses reads which instances count. Those that pass always do: a service of which only the ailing instances are used is a slip.
func (b *block) statuses() []string {
	const example = `["passing", "warning"]`
	list := b.texts("statuses", example, "status")
	for i, v := range list {
		if _, err := indexOf(v, []string{statusPassing, statusWarning}); err != nil {
			b.l.problem(b.rangeOf("statuses"), "Unknown status", "%v.", err)
			list[i] = statusPassing
		}
	}
	if !slices.Contains(list, statusPassing) {
		b.l.problem(b.rangeOf("statuses"), "Bad statuses", "statuses: instances that are passing must count. Write %s, or leave it out.", example)
	}
	return list
}

// texts reads a list of strings, none of which may be empty; noun is what one of them is.
func (b *block) texts(name, example, noun string) []string {
	var list []string
	for _, expr := range b.items(name, example) {
		v, ok := b.l.evaluate(name, expr, cty.String, "write each "+noun+" in quotes")
		switch {
		case !ok:
		case v.AsString() == "":
			b.l.problem(expr.Range().Ptr(), "Empty value", "A %s cannot be empty. Remove it.", noun)
		default:
			list = append(list, v.AsString())
		}
	}
	return list
}

// has tells whether the argument is there, and is not null.
func (b *block) has(name string) bool {
	return b.attrs[name] != nil && !isNull(b.attrs[name].Expr)
}
