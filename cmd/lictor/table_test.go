package main

import (
	"fmt"
	"strings"
	"testing"
)

// sampleTable returns a table of services.
func sampleTable(names ...string) *table {
	t := &table{gap: 2, columns: []column{
		{title: "SERVICE", cut: middle}, {title: "PROTO", drop: 2}, {title: "IN", align: right, least: 3},
		{title: "OUT", align: right, drop: 1}, {title: "NOTE", cut: end},
	}}
	for i, name := range names {
		t.add(name, "tcp", fmt.Sprint(100*i), "0", "no endpoint is usable")
	}
	return t
}

// A table that is too wide leaves out columns first, then shortens names, and then ends early. Its columns stay
// aligned.
func TestTableFits(t *testing.T) {
	t.Parallel()
	for width, want := range map[int]string{
		0: `
SERVICE                     PROTO   IN  OUT  NOTE
web                         tcp      0    0  no endpoint is usable
a-service-with-a-long-name  tcp    100    0  no endpoint is usable`,
		62: `
SERVICE                     PROTO   IN  OUT  NOTE
web                         tcp      0    0  no endpoint is us
a-service-with-a-long-name  tcp    100    0  no endpoint is us`,
		56: `
SERVICE                      IN  OUT  NOTE
web                           0    0  no endpoint is usa
a-service-with-a-long-name  100    0  no endpoint is usa`,
		50: `
SERVICE                      IN  NOTE
web                           0  no endpoint is us
a-service-with-a-long-name  100  no endpoint is us`,
		40: `
SERVICE             IN  NOTE
web                  0  no endpoint is u
a-servic~ong-name  100  no endpoint is u`,
		20: `
SERVICE        IN  N
web             0  n
a-serv~-name  100  n`,
	} {
		got := strings.Join(sampleTable("web", "a-service-with-a-long-name").lines(width), "\n")
		if strings.TrimRight(got, " ") != strings.TrimRight(want[1:], " ") {
			t.Errorf("%d columns: got:\n%s\nwant:%s", width, got, want)
		}
	}
}

// A remark that does not fit gets a line of its own if the table says so.
func TestTableSpills(t *testing.T) {
	t.Parallel()
	all := sampleTable("web", "a-service-with-a-long-name")
	all.spill, all.rows[0][4] = true, "short"
	equal(t, strings.Join(all.lines(50), "\n"), `SERVICE                      IN  NOTE
web                           0  short
a-service-with-a-long-name  100
    no endpoint is usable`)
}

func TestWrap(t *testing.T) {
	t.Parallel()
	parts := []string{"lictor v1 on host", "process 1", "ready"}
	for width, want := range map[int]string{
		0: "lictor v1 on host, process 1, ready", 35: "lictor v1 on host, process 1, ready",
		34: "lictor v1 on host, process 1,\nready", 18: "lictor v1 on host,\nprocess 1, ready",
		1: "lictor v1 on host,\nprocess 1,\nready",
	} {
		equal(t, wrap(parts, ", ", width), want)
	}
}

// One long name among many does not cost the others a column.
func TestTableWithOneLongName(t *testing.T) {
	t.Parallel()
	names := []string{strings.Repeat("long-", 15) + "name"}
	for i := range 20 {
		names = append(names, fmt.Sprintf("service-%d", i))
	}
	lines := sampleTable(names...).lines(80)
	at := strings.Index(lines[0], "NOTE")
	for _, line := range lines[1:] {
		if strings.Index(line, "no endpoint") != at {
			t.Errorf("not aligned: %s", line)
		}
	}
	if !strings.Contains(lines[0], "PROTO") || !strings.HasPrefix(lines[1], "long-") ||
		!strings.Contains(lines[1], "ng-name  tcp") {
		t.Errorf("got:\n%s", strings.Join(lines[:3], "\n"))
	}
}

// The width comes from $COLUMNS if the output is not a terminal.
func TestTableWidth(t *testing.T) {
	for columns, want := range map[string]int{"": 0, "80": 80, "-1": 0, "wide": 0} {
		t.Setenv("COLUMNS", columns)
		if got := widthOf(&strings.Builder{}); got != want {
			t.Errorf("%q: got %d, want %d", columns, got, want)
		}
	}
}

func TestCutMiddle(t *testing.T) {
	t.Parallel()
	for width, want := range map[int]string{9: "long-name", 8: "long~ame", 5: "lo~me", 3: "l~e", 2: "lo", 0: ""} {
		equal(t, cutMiddle("long-name", width), want)
	}
}
