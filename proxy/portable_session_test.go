package proxy

import "testing"

// A session with all its answers accepts no more datagrams. A session that accepts a datagram waits for its answers.
func TestPortableSessionIsCompleteOnce(t *testing.T) {
	x := &session{}
	if !x.ask() || x.complete(&Service{Responses: 1}) {
		t.Fatal("the session is complete without an answer")
	}
	x.datagramsDown.Add(1)
	if !x.ask() || x.complete(&Service{Responses: 1}) {
		t.Fatal("the session is complete although the client has asked again")
	}
	x.datagramsDown.Add(1)
	if x.complete(&Service{}) || x.complete(&Service{Responses: 2}) {
		t.Error("the session is complete although more answers may come")
	}
	if !x.complete(&Service{Responses: 1}) {
		t.Error("the session is not complete although all answers have come")
	}
	for range 2 {
		if x.ask() {
			t.Error("the session accepts datagrams although it is complete")
		}
	}
}

// A session ends as idle, or it accepts another datagram, but not both.
func TestPortableSessionLapsesOnlyIfNothingIsSent(t *testing.T) {
	x := &session{}
	x.last.Store(7)
	if x.lapse(6) || !x.ask() {
		t.Error("the session has lapsed although a datagram has moved since")
	}
	if !x.lapse(7) {
		t.Error("the session has not lapsed although it was idle")
	}
	if x.ask() {
		t.Error("the session accepts a datagram although it has lapsed")
	}
	for range 1000 {
		x := &session{}
		lapsed := make(chan bool)
		go func() { lapsed <- x.lapse(7) }()
		x.last.Store(8)
		if sends := x.ask(); <-lapsed == sends {
			t.Fatalf("the session lapsed and sent, or did neither: %v", sends)
		}
	}
}
