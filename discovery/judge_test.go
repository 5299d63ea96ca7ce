package discovery

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A turn is one answer in a sequence for judge, with the expected verdict.
type turn struct {
	after    time.Duration
	index    uint64
	says     string // see said
	filtered bool
	interest Leaves

	set      string // names in the set; a text that begins with ? is the doubt instead
	told     string // "b critical, c unmatched"
	gone     string
	hidden   int
	vanished string
	next     question
}

// play passes a sequence of answers to judge. The verdict on each answer chooses the next question.
func play(t *testing.T, g Guard, turns []turn) {
	t.Helper()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b belief
	var q question
	for i, s := range turns {
		now = now.Add(s.after)
		q = b.nextQuestion(q, s.interest)
		v := b.judge(g.withDefaults(), evidence{
			now: now, asked: q, index: s.index, filtered: s.filtered, in: said(strings.Fields(s.says)...),
			interest: s.interest,
		})
		doubt, doubted := strings.CutPrefix(s.set, "?")
		if !doubted {
			doubt = ""
		}
		if v.doubt != doubt {
			t.Fatalf("turn %d: doubt %q, want %q", i, v.doubt, doubt)
		}
		got := turn{
			set: namesOf(v.belief.set), told: toldOf(v.told), gone: namesOf(v.gone), hidden: v.hidden,
			vanished: namesOf(v.belief.vanished), next: v.next,
		}
		want := turn{set: s.set, told: s.told, gone: s.gone, hidden: s.hidden, vanished: s.vanished, next: s.next}
		if doubted {
			want.set, want.vanished = namesOf(b.set), namesOf(b.vanished)
		}
		if got != want {
			t.Fatalf("turn %d: got %+v, want %+v", i, got, want)
		}
		b, q = v.belief, v.next
	}
}

// toldOf describes departures.
func toldOf(told []lb.Departure) string {
	var all []string
	for _, d := range told {
		all = append(all, fmt.Sprint(strings.TrimPrefix(d.ID, "n/"), " ", d.Why))
	}
	return strings.Join(all, ", ")
}

const (
	smaller = "?set is sharply smaller"
	back    = "?index went back"
)

// at returns a question with an index. leader is a question for an answer that the leader must confirm.
func at(index uint64) question { return question{index: index} }

var leader = question{leader: true}

func TestJudgeOfIndexes(t *testing.T) {
	for name, turns := range map[string][]turn{
		"the first answer counts whatever its index": {{index: 7, says: "a b", set: "ab", next: at(7)}},
		"an empty first answer counts":               {{index: 7, next: at(7)}},
		"index zero is asked with as one":            {{index: 0, says: "a", set: "a", next: at(1)}},
		"an equal index counts": {
			{index: 7, says: "a", set: "a", next: at(7)}, {index: 7, says: "a b", set: "ab", next: at(7)},
		},
		"an index that went back": {
			{index: 7, says: "a", set: "a", next: at(7)}, {index: 6, says: "b", set: back},
			{index: 6, says: "a b", set: "ab", next: at(6)},
		},
		"an agent that knows nothing": {
			{index: 7, says: "a", set: "a", next: at(7)}, {index: 1, set: back},
			{index: 7, says: "a", set: "a", next: at(7)},
		},
	} {
		t.Run(name, func(t *testing.T) { play(t, Guard{}, turns) })
	}
}

func TestJudgeOfHolds(t *testing.T) {
	four := turn{index: 7, says: "a b c d", set: "abcd", next: at(7)}
	for name, turns := range map[string][]turn{
		"one of four goes at once": {four, {index: 8, says: "a b c", set: "abc", vanished: "d", next: at(8)}},
		"three of four are confirmed, then held, then go": {
			four, {index: 8, says: "a", set: smaller, next: leader}, {index: 8, says: "a", set: "abcd", next: at(8)},
			{after: 9 * time.Second, index: 9, says: "a", set: "abcd", next: at(9)},
			{after: time.Second, index: 9, says: "a", set: "a", vanished: "bcd", next: at(9)},
		},
		"what is held goes only by an answer that counts": {
			four, {index: 8, says: "a", set: smaller, next: leader}, {index: 8, says: "a", set: "abcd", next: at(8)},
			{after: time.Hour, index: 1, set: back}, {index: 8, says: "a", set: "a", vanished: "bcd", next: at(8)},
		},
		"what returns is held no more": {
			four, {index: 8, set: smaller, next: leader}, {index: 8, set: "abcd", next: at(8)},
			{after: 9 * time.Second, index: 9, says: "a b c d", set: "abcd", next: at(9)},
			{after: time.Second, index: 10, set: smaller, next: leader},
		},
		"new ones are in at once, beside what is held": {
			four, {index: 8, set: smaller, next: leader}, {index: 8, set: "abcd", next: at(8)},
			{index: 9, says: "x", set: "abcdx", next: at(9)},
		},
		"maintenance is believed at once": {
			four, {index: 8, says: "a! b! c! d!", told: "a critical, b critical, c critical, d critical", next: at(8)},
		},
		"the leader corrects it": {four, {index: 8, set: smaller, next: leader},
			{index: 9, says: "a b c d", set: "abcd", next: at(9)}},
		"critical ones are held too": {
			four, {index: 8, says: "a b? c? d?", set: smaller, next: leader},
			{index: 8, says: "a b? c? d?", set: "abcd", next: at(8)},
			{after: 10 * time.Second, index: 8, says: "a b? c? d?", set: "a",
				told: "b critical, c critical, d critical",
				next: at(8)},
		},
	} {
		t.Run(name, func(t *testing.T) { play(t, Guard{}, turns) })
	}
}

func TestJudgeOfDepartures(t *testing.T) {
	ignored, confirmed := LeavesIgnored, LeavesConfirmed
	begin := turn{index: 7, says: "a b c d", set: "abcd", interest: confirmed, next: at(7)}
	for name, turns := range map[string][]turn{
		"vanished, no service is interested": {begin,
			{index: 8, says: "a b c", set: "abc", interest: ignored, vanished: "d", next: at(8)}},
		"vanished, a service is interested": {
			begin, {index: 8, says: "a b c", set: "abc", interest: confirmed, vanished: "d", next: leader},
			{index: 8, says: "a b c", set: "abc", interest: confirmed, gone: "d", next: at(8)},
		},
		"vanished, a service becomes interested": {
			begin, {index: 8, says: "a b c", set: "abc", interest: ignored, vanished: "d", next: at(8)},
			{index: 8, says: "a b c", set: "abc", interest: confirmed, gone: "d", next: at(8)},
		},
		"vanished, and here again": {
			begin, {index: 8, says: "a b c", set: "abc", interest: confirmed, vanished: "d", next: leader},
			{index: 9, says: "a b c d", set: "abcd", interest: confirmed, next: at(9)},
		},
		"here under another ID": {begin, {index: 8, says: "a b c x=d", set: "abcx", interest: confirmed, next: at(8)}},
		"the token may not see all": {
			begin, {index: 8, says: "a b c", set: "abc", interest: confirmed, vanished: "d", next: leader},
			{index: 8, says: "a b c", set: "abc", interest: confirmed, filtered: true, hidden: 1, next: at(8)},
		},
		"from one reason to another, then gone": {
			begin, {index: 8, says: "a b c d~", set: "abc", interest: confirmed, told: "d unmatched", next: at(8)},
			{index: 9, says: "a b c d?", set: "abc", interest: confirmed, told: "d critical", next: at(9)},
			{index: 10, says: "a b c", set: "abc", interest: confirmed, vanished: "d", next: leader},
			{index: 10, says: "a b c", set: "abc", interest: confirmed, gone: "d", next: at(10)},
		},
		"at another address, of which nothing more is said": {
			begin, {index: 8, says: "a b c d=z", set: "abcd", interest: confirmed, told: "d deregistered", next: at(8)},
			{index: 9, says: "a b c", set: "abc", interest: confirmed, vanished: "d", next: leader},
			{index: 9, says: "a b c", set: "abc", interest: confirmed, gone: "d", next: at(9)},
		},
	} {
		t.Run(name, func(t *testing.T) { play(t, Guard{}, turns) })
	}
}

func TestVanishedEndpointsAreBounded(t *testing.T) {
	var many []*entry
	for i := range 3 * maxVanished {
		many = append(many, instance(fmt.Sprint(i), "10.0.0.1", 1000+i))
	}
	g := Guard{MaxDrop: 100}.withDefaults()
	b := belief{}.judge(g, evidence{in: convert(many, rules{statuses: passingOnly})}).belief
	gone := b.judge(g, evidence{in: convert(many[:1], rules{statuses: passingOnly})}).belief.vanished
	if len(gone) != maxVanished {
		t.Errorf("%d vanished endpoints are remembered, want %d", len(gone), maxVanished)
	}
}

// If a query allows only one reason, the reason is known without the registry.
func TestWhyEndpointsVanished(t *testing.T) {
	gone := said("a", "b").endpoints
	known := registry{{gone[0].ID, gone[0].Address()}: true, {gone[1].ID, "elsewhere:80"}: true}
	for name, tt := range map[string]struct {
		query Query
		known registry
		asks  bool
		want  string
	}{
		"a plain query": {Query{}, nil, false, "a deregistered, b deregistered"},
		"tags, unknown": {Query{Tags: []string{"x"}}, nil, true,
			"a deregistered or unmatched, b deregistered or unmatched"},
		"a filter, known":   {Query{Filter: "x"}, known, true, "a unmatched, b deregistered"},
		"an empty registry": {Query{Filter: "x"}, registry{}, true, "a deregistered, b deregistered"},
		"a prepared query may be anything": {Query{Prepared: "x"}, nil, false,
			"a deregistered or critical or unmatched, b deregistered or critical or unmatched"},
	} {
		if got := toldOf(tt.query.explain(gone, tt.known)); got != tt.want || tt.query.needsRegistry() != tt.asks {
			t.Errorf("%s: got %q, asks %v, want %q, %v", name, got, tt.query.needsRegistry(), tt.want, tt.asks)
		}
	}
}

// randomAnswer returns an answer with some of the instances a to h, of any health.
func randomAnswer(r *rand.Rand) string {
	var names []string
	for name := 'a'; name <= 'h'; name++ {
		if r.IntN(4) > 0 {
			names = append(names, string(name)+[]string{"", "", "", "?", "!", "~"}[r.IntN(6)])
		}
	}
	if r.IntN(8) == 0 {
		return ""
	}
	return strings.Join(names, " ")
}

// The numbers are those of the invariants in judge.go.
func TestJudgeKeepsItsInvariants(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var b belief
		var q question
		for range 60 {
			now = now.Add(time.Duration(r.IntN(8)) * time.Second)
			e := evidence{
				now: now, asked: b.nextQuestion(q, LeavesConfirmed), index: uint64(10 + r.IntN(3)),
				interest: LeavesConfirmed, probed: r.IntN(2) > 0, filtered: r.IntN(8) == 0, denies: r.IntN(2) > 0,
				in: said(strings.Fields(randomAnswer(r))...),
			}
			if r.IntN(4) == 0 {
				e.unreachable = map[string]bool{"n/" + string(rune('a'+r.IntN(8))): true}
			}
			before := b.clone()
			v := b.judge(Guard{}.withDefaults(), e)
			checkVerdict(t, seed, before, e, v)
			if fmt.Sprint(b) != fmt.Sprint(before) {
				t.Fatalf("seed %d: judge changed what it was given", seed)
			}
			b, q = v.belief, v.next
			if t.Failed() {
				return
			}
		}
	}
}

func (b belief) clone() belief {
	b.set, b.held, b.joined = slices.Clone(b.set), maps.Clone(b.held), maps.Clone(b.joined)
	b.hidden = maps.Clone(b.hidden)
	b.out, b.vanished = slices.Clone(b.out), slices.Clone(b.vanished)
	return b
}

// heldStill returns the held endpoints that must stay held: the answer leaves them out, their time is not over, and
// probes reach them.
func heldStill(b belief, e evidence) (still []lb.Endpoint) {
	for _, one := range lostFrom(b.set, e.in) {
		if h, held := b.held[one.ID]; held && h.until.After(e.now) && !e.unreachable[one.ID] {
			still = append(still, one)
		}
	}
	return still
}

func checkVerdict(t *testing.T, seed uint64, b belief, e evidence, v verdict) {
	t.Helper()
	bad := func(number int, what string) {
		t.Helper()
		t.Errorf("seed %d: invariant %d: %s: from %+v by %+v to %+v", seed, number, what, b, e, v)
	}
	if v.doubt != "" {
		if fmt.Sprint(v.belief) != fmt.Sprint(b) || len(v.told)+len(v.gone) > 0 {
			bad(1, "an answer in doubt has changed something")
		}
		if v.next.index != 0 {
			bad(5, "the next query has an index")
		}
		return
	}
	if e.index < e.asked.index {
		bad(2, "believed")
	}
	named := func(all []lb.Endpoint, id string) bool {
		return slices.ContainsFunc(all, func(one lb.Endpoint) bool { return one.ID == id })
	}
	for _, one := range e.in.endpoints {
		if !named(v.belief.set, one.ID) {
			bad(1, one.ID+" is missing in the set")
		}
	}
	for _, one := range v.belief.set {
		states := 0
		_, held := v.belief.held[one.ID]
		for _, is := range []bool{held, v.belief.hidden[one.ID], named(e.in.endpoints, one.ID)} {
			if is {
				states++
			}
		}
		if states != 1 {
			bad(1, one.ID+" is either named, held or hidden")
		}
	}
	if v.denied != (len(v.belief.hidden) > 0) || v.denied && v.next.index != 0 {
		bad(5, "the next query does not show whether the token has its right again")
	}
	hidden := b.hiddenFrom(&e)
	lost, now := len(lostFrom(b.set, e.in))-len(hidden), len(e.in.endpoints)+len(hidden)
	if sharp := (Guard{}).withDefaults().sharp(len(b.set), lost, now); sharp && !e.asked.leader {
		for _, one := range lostFrom(b.set, e.in) {
			if _, held := b.held[one.ID]; !held && !hidden[one.ID] {
				bad(3, one.ID+" was lost sharply, and the leader did not confirm it")
			}
		}
	}
	early := heldStill(b, e)
	if len(b.joinedBy(e.in)) >= len(early) {
		early = nil
	}
	for _, one := range b.set {
		if named(v.belief.set, one.ID) {
			continue
		}
		if named(early, one.ID) {
			bad(4, one.ID+" was let go before its time")
		}
		if hidden[one.ID] {
			bad(7, one.ID+" was dropped because the token may not see it")
		}
		told := slices.ContainsFunc(v.told, func(d lb.Departure) bool { return d.ID == one.ID })
		if !told && v.hidden == 0 && !named(v.gone, one.ID) && !named(v.belief.vanished, one.ID) {
			bad(6, one.ID+" has left without a word")
		}
	}
}
