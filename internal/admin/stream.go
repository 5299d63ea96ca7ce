package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// sampleEvery is the interval of reading the counters. minGap is the time between an event and the next look.
const (
	sampleEvery = time.Second
	minGap      = 100 * time.Millisecond
)

// A pace limits looks, which are costly with many services, to a fifth of one processor. The number of events and of
// streams does not matter. The zero pace allows the first look at once.
type pace struct{ next time.Time }

// looked records that a look ended at now.
func (p *pace) looked(now time.Time, took time.Duration) { p.next = now.Add(4 * took) }

// delay returns how long to wait before the next look; that is at least gap.
func (p *pace) delay(now time.Time, gap time.Duration) time.Duration {
	return max(gap, p.next.Sub(now))
}

// tick samples the counters once a second. While a stream is open, tick also publishes the whole state once a second
// and after each event.
func (s *Server) tick() {
	second := time.NewTicker(sampleEvery)
	defer second.Stop()
	var due <-chan time.Time // fires when the next look is due; nil if no look is planned
	var looks pace
	plan := func(gap time.Duration) {
		if due == nil {
			due = time.After(looks.delay(time.Now(), gap))
		}
	}
	_, _, more := s.o.Events.After(0, "", 0)
	for {
		select {
		case <-s.stopping.Done():
			return
		case <-second.C:
			s.history.sample(time.Now(), s.o.State.eachActivity)
			s.scrapes.forget()
			plan(0)
		case <-s.hub.entered:
			plan(0)
		case <-more:
			_, _, more = s.o.Events.After(0, "", 0)
			plan(minGap)
		case <-due:
			due = nil
			s.look(&looks)
		}
	}
}

// look waits for a turn of s.work, and publishes the current state to the open streams.
func (s *Server) look(looks *pace) {
	if !s.hub.watched() {
		return
	}
	s.work.do(s.stopping, func() {
		began := time.Now()
		services := s.o.State.services()
		s.hub.publish(services, s.status(services))
		now := time.Now()
		looks.looked(now, now.Sub(began))
	})
}

// watch serves a stream of server-sent events. "services" has the changed services (all at first), "events" has new
// events, and "status" has the status after each look.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	leave, err := s.streams.take(r)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	defer leave()
	s.hub.enter()
	defer s.hub.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{}) // the client sends nothing more
	var seq, seen uint64
	for {
		// Take the channel before reading the state, so that no change is missed.
		changed, status, next, more := s.hub.after(seq)
		seq = next
		if len(changed.Services)+len(changed.Removed) > 0 && send(w, out, "services", changed.text()) != nil {
			return
		}
		var events []endpoints.Event
		events, seen, _ = s.o.Events.After(seen, "", 200)
		if len(events) > 0 && sendJSON(w, out, "events", eventsOf(events)) != nil {
			return
		}
		if status != nil && sendJSON(w, out, "status", status) != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-ending(r):
			return
		case <-more:
		}
	}
}

func sendJSON(w http.ResponseWriter, out *http.ResponseController, name string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return send(w, out, name, visible.JSON(text))
}

// send writes one server-sent event.
func send(w http.ResponseWriter, out *http.ResponseController, name string, text []byte) error {
	_ = out.SetWriteDeadline(time.Now().Add(answerTime))
	_, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, text)
	return errors.Join(err, out.Flush())
}
