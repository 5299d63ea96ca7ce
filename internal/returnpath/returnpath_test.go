package returnpath

import (
	"strings"
	"testing"
)

func TestFindings(t *testing.T) {
	main := rule{priority: 32766, table: mainTable}
	mark := rule{priority: 32765, table: 100, mark: 1}
	ready := map[uint32]bool{100: true}
	for _, tt := range []struct {
		name string
		host host
		want string // the summary and a part of the detail of the only finding; empty for none
	}{
		{"by mark", host{rules: []rule{mark, main}, local: ready}, ""},
		{"by interface", host{rules: []rule{{table: 100, from: "eth1"}, main}, local: ready}, ""},
		{"without the table main", host{rules: []rule{mark}, local: ready}, ""},
		{"a large table", host{rules: []rule{{table: 1000, mark: 1}, main}, local: map[uint32]bool{1000: true}}, ""},
		{"nothing", host{rules: []rule{main}}, "No rule for answers: ip rule add fwmark 0x1 lookup 100"},
		{"nothing for IPv6", host{family: IPv6}, "No rule for answers: ip -6 route add local default dev lo table 100"},
		{"the packets that this host sends", host{rules: []rule{{table: 100, from: "lo"}}, local: ready},
			"No rule for answers: ip rule"},
		{"all packets", host{rules: []rule{{table: 100}}, local: ready}, "No rule for answers: ip rule"},
		{"the table local", host{rules: []rule{{table: 255, mark: 1}}}, "No rule for answers: ip rule"},
		{"no route", host{rules: []rule{{table: 7, mark: 2}, main}, local: ready},
			`No local route: The rule "fwmark 0x2 lookup 7"`},
		{"no route in one of two", host{rules: []rule{{table: 7, mark: 2}, mark, main}, local: ready}, ""},
		{"after main", host{rules: []rule{main, mark}, local: ready}, "Rule has no effect: ip rule add priority 100"},
		{"a reverse path by mark", host{rules: []rule{mark, main}, local: ready, marked: true},
			"Answers are dropped because of src_valid_mark: ip rule add fwmark 0x1 iif NAME lookup 100"},
		{"a reverse path by mark, and an interface",
			host{rules: []rule{{table: 100, mark: 1, from: "eth1"}, main}, local: ready, marked: true}, ""},
		{"strict interfaces", host{rules: []rule{mark, main}, local: ready, strict: []string{"eth0", "eth1"}},
			"Strict reverse path filter: for eth0, eth1"},
	} {
		t.Run(tt.name, func(t *testing.T) { wantFinding(t, tt.host.findings(), tt.want) })
	}
}

// wantFinding wants a single Finding, given as its summary and a part of its detail. An empty want means none.
func wantFinding(t *testing.T, got []Finding, want string) {
	t.Helper()
	if want == "" {
		if len(got) > 0 {
			t.Errorf("got %v, want nothing", got)
		}
		return
	}
	summary, part, _ := strings.Cut(want, ": ")
	if len(got) != 1 || got[0].Summary != summary || !strings.Contains(got[0].Detail, part) {
		t.Errorf("got %v, want %s", got, want)
	}
}
