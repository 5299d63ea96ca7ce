package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
)

// counters are some counters of one service.
type counters struct {
	Up      int64 `json:"datagrams_up"`
	Dropped int64 `json:"datagrams_dropped"`
}

func (l *lictor) counters(t testing.TB, service string) counters {
	t.Helper()
	var answer struct {
		Service struct{ Counters counters }
	}
	_, out := l.ask(t, "explain", "-json", service)
	must(t, json.Unmarshal([]byte(out), &answer))
	return answer.Service.Counters
}

// Two Lictors that are each other's instances cannot know that. A datagram goes back and forth only until its hops are
// used up.
func TestDatagramBetweenTwoLictorsDiesOut(t *testing.T) {
	t.Parallel()
	kinds := map[string]string{
		"sessions": "", "one-way": "responses = 0", "one-way, one datagram each": "responses = 0\n  requests = 1",
	}
	for name, more := range kinds {
		t.Run(name, func(t *testing.T) {
			one, two := freePort(t), freePort(t)
			first := runLictor(t, serviceAt("ping", one, udp, more, fmt.Sprintf("static { endpoints = [%q] }", two)))
			second := runLictor(t, serviceAt("pong", two, udp, more, fmt.Sprintf("static { endpoints = [%q] }", one)))
			client := dialUDP(t, one)
			for i := range int64(3) { // from the second on, there are sessions
				_, err := client.Write([]byte("x"))
				must(t, err)
				eventually(t, "the last hop", func() error {
					if n := first.counters(t, "ping").Dropped + second.counters(t, "pong").Dropped; n < i+1 {
						return errors.New("not yet")
					}
					return nil
				})
				// Linux gives a datagram 64 hops, and each forwarding takes one.
				ping, pong := first.counters(t, "ping"), second.counters(t, "pong")
				up, dropped := ping.Up+pong.Up, ping.Dropped+pong.Dropped
				if up != 63*(i+1) || dropped != i+1 {
					t.Errorf("%d datagrams: forwarded %d times, dropped %d, want 63 and 1 of each", i+1, up, dropped)
				}
			}
		})
	}
}
