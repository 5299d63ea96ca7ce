package config

import (
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// A Leave is how long connections may go on after their endpoint has left: LeaveFinish, LeaveCut, or a duration above
// zero.
type Leave time.Duration

// Leaves that are not durations.
const (
	LeaveFinish Leave = 0  // connections go on until they end
	LeaveCut    Leave = -1 // connections are cut at once
)

// String returns the value as it is written in the configuration.
func (l Leave) String() string {
	switch {
	case l == LeaveFinish:
		return "finish"
	case l < 0:
		return "cut"
	}
	return time.Duration(l).String()
}

// MarshalText returns what String returns.
func (l Leave) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText accepts the texts that String returns.
func (l *Leave) UnmarshalText(text []byte) error {
	switch string(text) {
	case "finish":
		*l = LeaveFinish
	case "cut":
		*l = LeaveCut
	default:
		d, err := time.ParseDuration(string(text))
		if err != nil {
			return err
		}
		*l = Leave(d)
	}
	return nil
}

// OnLeave holds one Leave for each reason why an endpoint leaves.
type OnLeave struct {
	Deregistered, Critical, Unmatched Leave
}

// onLeave reads the argument on_leave, which applies to all reasons, or the block on_leave, which has an argument for
// each reason.
func (b *block) onLeave() (o OnLeave) {
	each := b.eachReason("on_leave", onLeaveSchema())
	if each == nil {
		all := b.leave("on_leave")
		return OnLeave{all, all, all}
	}
	return OnLeave{Deregistered: each.leave("deregistered"), Critical: each.leave("critical"),
		Unmatched: each.leave("unmatched")}
}

// eachReason returns the block that has an argument for each reason, or nil if there is no such block. It reports an
// argument of the same name beside the block, because the argument applies to all reasons.
func (b *block) eachReason(name string, schema *hcl.BodySchema) *block {
	each := b.single(name, schema)
	if attr := b.attrs[name]; attr != nil && each != nil {
		b.l.problem(attr.NameRange.Ptr(), "Arguments that exclude each other",
			"There is also a block %s, at %s. Keep the argument to treat all reasons alike, "+
				"or keep the block.", name, place(each.head))
	}
	return each
}

// leave reads one Leave. It returns LeaveFinish if the argument is absent or was reported.
func (b *block) leave(name string) Leave {
	const hint = `write "finish", "cut", or a duration in quotes with its unit, such as "30s"`
	v, ok := b.value(name, cty.DynamicPseudoType, hint)
	switch {
	case !ok:
		return LeaveFinish
	case v.Type() == cty.Number:
		b.l.problem(b.rangeOf(name), "Duration without a unit", "%s: %s.", name, hint)
		return LeaveFinish
	case v.Type() != cty.String:
		b.l.problem(b.rangeOf(name), "Wrong type", "%s: %s.", name, hint)
		return LeaveFinish
	}
	text := v.AsString()
	d, err := time.ParseDuration(text)
	switch {
	case text == LeaveFinish.String():
		return LeaveFinish
	case text == LeaveCut.String():
		return LeaveCut
	case err != nil && isNumber(text):
		b.l.problem(b.rangeOf(name), "Duration without a unit",
			"%s: %q has no unit. Write %q for seconds, or another unit: ms, m, h.", name, text, text+"s")
	case err != nil && isLongDuration(text):
		b.tooLong(name, text)
	case err != nil:
		words := []string{LeaveFinish.String(), LeaveCut.String()}
		b.l.problem(b.rangeOf(name), "Bad value", "%s: %q is not valid.%s W%s.", name, text,
			didYouMean(text, words), hint[1:])
	case d <= 0:
		b.l.problem(b.rangeOf(name), "Bad duration",
			"%s: %q is not above zero. To cut connections at once, write \"cut\".", name, text)
	default:
		return Leave(d)
	}
	return LeaveFinish
}

// lifetimes reads the arguments that end connections which neither side has ended.
func (b *block) lifetimes(s *Service) {
	s.OnLeave = b.onLeave()
	s.MaxAge = b.durationOrNever("max_age", 0, 0)
	s.MaxAgeGrace = b.durationOrNone("max_age_grace", DefaultMaxAgeGrace, Off)
	if attr := b.attrs["max_age_grace"]; attr != nil && b.attrs["max_age"] == nil {
		b.l.problem(attr.NameRange.Ptr(), "Argument without max_age",
			"max_age_grace: service %q has no max_age. Remove max_age_grace, or write max_age = \"1h\".", s.Name)
	}
}

// stays reports on_leave in a service whose endpoints never leave.
func (b *block) stays(s *Service) {
	if s.Consul != nil || s.OnLeave == (OnLeave{}) {
		return
	}
	at := b.head
	if attr := b.attrs["on_leave"]; attr != nil {
		at = attr.NameRange
	}
	for _, inner := range b.blocks.OfType("on_leave") {
		at = inner.DefRange
	}
	b.l.problem(&at, "Static endpoints never leave",
		"on_leave: service %q has only static endpoints, which never leave. Remove on_leave.",
		s.Name)
}
