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
