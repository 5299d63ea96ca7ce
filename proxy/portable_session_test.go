package proxy

import "testing"

// A session with all its answers takes no more datagrams, and one that takes a datagram waits for its answers.
func TestPortableSessionIsCompleteOnce(t *testing.T) {
	x := &session{}
	if !x.ask() || x.complete(&Service{Responses: 1}) {
		t.Fatal("it is complete without an answer")
	}
	x.datagramsDown.Add(1)
	if !x.ask() || x.complete(&Service{Responses: 1}) {
		t.Fatal("it is complete though the client has asked again")
	}
	x.datagramsDown.Add(1)
	if x.complete(&Service{}) || x.complete(&Service{Responses: 2}) {
		t.Error("it is complete though more may come")
	}
	if !x.complete(&Service{Responses: 1}) {
		t.Error("it is not complete though all answers have come")
	}
	for range 2 {
		if x.ask() {
			t.Error("it takes datagrams though it is complete")
		}
	}
}
