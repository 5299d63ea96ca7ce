//go:build unix

package upgrade

import (
	"errors"
	"io"
	"net/netip"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// linked returns a former process and the serving process, each seen from the other.
func linked(t *testing.T, pid int) (*Serving, *Former) {
	t.Helper()
	c, file, err := newPair()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	fd, err := unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	other, err := inheritConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	t.Cleanup(other.close)
	return &Serving{c}, &Former{pid, other}
}

func TestFormerProcessTellsWhatItUses(t *testing.T) {
	serving, former := linked(t, 7)
	want := []Use{
		{Service: "web", ID: "n/1", Address: "10.0.0.1:80", Count: 2},
		{Service: "web", Client: netip.MustParseAddr("10.1.1.1"), Count: 0}, // the client has gone
		{Service: "web", Count: 3},
	}
	if err := errors.Join(serving.Tell(Report{Uses: want, All: true}), serving.Tell(Report{})); err != nil {
		t.Fatal(err)
	}
	for _, wantAll := range []bool{true, false} {
		got, err := former.Receive()
		if err != nil || got.All != wantAll || !reflect.DeepEqual(got.Uses, want) {
			t.Fatalf("got %+v, %v, want %v", got, err, want)
		}
		want = nil
	}
	serving.Close()
	if _, err := former.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after its end: got %v", err)
	}
}

// A former process may outlive its successor, and then reports to the successor's successor.
func TestFormerProcessMoves(t *testing.T) {
	serving, former := linked(t, 7)
	file, err := former.move()
	if err != nil {
		t.Fatal(err)
	}
	former.Close()
	next, err := serving.Moved()
	if err != nil {
		t.Fatal(err)
	}
	serving.Close()
	fd, err := unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	other, err := inheritConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	former = &Former{7, other}
	defer former.Close()
	if err := next.Tell(Report{Uses: uses(1), All: true}); err != nil {
		t.Fatal(err)
	}
	if got, err := former.Receive(); err != nil || !reflect.DeepEqual(got, Report{Uses: uses(1), All: true}) {
		t.Errorf("got %+v, %v", got, err)
	}
	next.Close()
	if _, err := former.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after its end: got %v", err)
	}
	if _, err := former.move(); err == nil {
		t.Error("a process that has ended moves")
	}
}

func TestProcessThatServesEnds(t *testing.T) {
	serving, former := linked(t, 7)
	former.Close()
	if next, err := serving.Moved(); err == nil || next != nil {
		t.Errorf("got %v, %v, want an error", next, err)
	}
}
