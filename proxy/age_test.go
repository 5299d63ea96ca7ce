package proxy

import (
	"io"
	"slices"
	"testing"
	"time"
)

func TestAgesSpread(t *testing.T) {
	a := aging{age: time.Hour}
	var all []time.Duration
	for seed := range uint64(1000) {
		all = append(all, a.of(seed))
	}
	slices.Sort(all)
	if first, last := all[0], all[len(all)-1]; first < 54*time.Minute || last > 66*time.Minute ||
		first > 55*time.Minute || last < 65*time.Minute {
		t.Errorf("from %v to %v, want an hour give or take a tenth", first, last)
	}
	for i := 1; i < len(all); i++ {
		if all[i]-all[i-1] > 30*time.Second {
			t.Errorf("no connection ends between %v and %v", all[i-1], all[i])
		}
	}
}

// A connection that is too old ends properly once it is quiet. If its client waits for an answer, it may go on until
// MaxAgeGrace has passed.
func TestOldConnectionsEndInAQuietMoment(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		records := make(chan AccessRecord, 10)
		h.options.Access = func(r AccessRecord) { records <- r }
		answer := make(chan struct{})
		server := tcpServer(t, func(c testConn) {
			b := make([]byte, 5)
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			if string(b) == "later" {
				<-answer
			}
			c.Write(b)
			io.Copy(io.Discard, c)
		})
		at := h.serve(Service{MaxAge: time.Millisecond, MaxAgeGrace: time.Minute}, server)
		waits := dialTCP(t, at)
		io.WriteString(waits, "later")
		eventually(t, equals("bytes up", func() int64 { return h.stats().BytesUp }, 5))
		quiet, silent := dialTCP(t, at), dialTCP(t, at)
		exchange(t, quiet, "hello")
		for _, c := range []testConn{quiet, silent} {
			if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("got %d bytes, %v, want an end", n, err)
			}
		}
		for range 2 {
			if r := <-records; r.Reason != ReasonAge {
				t.Errorf("got %+v", r)
			}
		}
		close(answer)
		b := make([]byte, 5)
		if _, err := io.ReadFull(waits, b); err != nil || string(b) != "later" {
			t.Errorf("the client that waited got %q, %v", b, err)
		}
		if _, err := waits.Read(b); err != io.EOF {
			t.Errorf("after the answer: got %v, want an end", err)
		}
		if s := h.stats(); s.EndedAged != 3 || s.EndedLeft != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestOldConnectionsThatAreNeverQuietAreReset(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		server := tcpServer(t, func(c testConn) { io.Copy(io.Discard, c) })
		at := h.serve(Service{MaxAge: time.Millisecond, MaxAgeGrace: 2 * time.Second}, server)
		c := dialTCP(t, at)
		io.WriteString(c, "and?")
		_, err := c.Read(make([]byte, 1))
		wantReset(t, err)
		c = dialTCP(t, at) // this client never stops sending
		for err = nil; err == nil; _, err = c.Write([]byte("more")) {
		}
		eventually(t, equals("ended", func() int64 { return h.stats().EndedAged }, 2))
	})
}

// A half-closed connection that is too old waits for the rest of the answer.
func TestOldConnectionThatIsHalfClosedIsNotQuiet(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		answer := make(chan struct{})
		server := tcpServer(t, func(c testConn) {
			c.Write([]byte("first "))
			io.Copy(io.Discard, c)
			<-answer
			c.Write([]byte("last"))
		})
		at := h.serve(Service{MaxAge: time.Millisecond, MaxAgeGrace: time.Minute}, server)
		half := dialTCP(t, at)
		half.CloseWrite()
		quiet := dialTCP(t, at)
		if b, err := io.ReadAll(quiet); err != nil || string(b) != "first " {
			t.Errorf("got %q, %v", b, err)
		}
		close(answer)
		if b, err := io.ReadAll(half); err != nil || string(b) != "first last" {
			t.Errorf("got %q, %v, want the whole answer", b, err)
		}
	})
}

// When MaxAge is set, the age of open connections counts from then.
func TestMaxAgeHoldsForOpenConnections(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		s := Service{Name: "s", Listen: listen(freePort(t, TCP))}
		at := h.serve(s, tcpServer(t, echo))
		c := dialTCP(t, at)
		exchange(t, c, "hello")
		s.MaxAge = 10 * time.Millisecond
		if err := h.Apply([]Service{s}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("got %v, want an end", err)
		}
	})
}
