package deadline

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// While the process runs, a timer fires exactly at its time.
func TestTimer(t *testing.T) {
	for _, d := range []time.Duration{-time.Second, 0, time.Nanosecond, grace, time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			began, fired := time.Now(), make(chan struct{})
			timer := start(d, func() { close(fired) }, nil)
			<-fired
			if took := time.Since(began); took != max(d, 0) {
				t.Errorf("%v took %v", d, took)
			}
			if timer.stop() {
				t.Error("stop returned true after the timer had fired")
			}
		})
	}
}

// A stopped timer calls nothing, whenever it is stopped.
func TestStop(t *testing.T) {
	for _, at := range []time.Duration{0, time.Second - grace/2} {
		synctest.Test(t, func(t *testing.T) {
			timer := start(time.Second, func() { t.Error("a stopped timer has fired") }, nil)
			time.Sleep(at)
			if !timer.stop() || timer.stop() {
				t.Error("stop must return true exactly once")
			}
			time.Sleep(time.Hour)
		})
	}
}

// A timer that fires late assumes that the process stood still, and waits again. A timer that is late each time fires
// in the end.
func TestLateTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timer := start(time.Hour, func() {}, nil)
		defer timer.stop()
		if timer.expires() {
			t.Error("the timer expired before its last part began")
		}
		for looks := 1; looks < maxLooks; looks++ {
			timer.timer.Stop() // so that the timer does not fire in time
			time.Sleep(timer.last + grace)
			if timer.expires() {
				t.Fatalf("the timer expired after %d looks, all of them late", looks)
			}
		}
		timer.timer.Stop()
		time.Sleep(timer.last + grace)
		if !timer.expires() {
			t.Error("the timer never expires")
		}
	})
}

// The context of WithTimeout ends as one of package context does, but its Deadline method reports nothing.
func TestWithTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, cancel := WithTimeout(t.Context(), time.Second)
		defer cancel()
		longer, cancelLonger := WithTimeout(ctx, time.Minute)
		defer cancelLonger()
		for _, c := range []context.Context{ctx, longer} {
			if end, ok := End(c); !ok || !end.Equal(began.Add(time.Second)) {
				t.Errorf("got end %v, %v, want a second after %v", end, ok, began)
			}
			if _, ok := c.Deadline(); ok {
				t.Error("package net would see the deadline")
			}
			if c.Err() != nil {
				t.Errorf("got %v before the end", c.Err())
			}
		}
		<-longer.Done()
		if ctx.Err() != context.DeadlineExceeded || context.Cause(longer) != context.DeadlineExceeded {
			t.Errorf("got %v, %v, want that the time is over", ctx.Err(), context.Cause(longer))
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v, want a second", took)
		}
		cause := errors.New("too slow")
		other, cancelOther := WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancelOther()
		<-other.Done()
		if other.Err() != context.DeadlineExceeded || context.Cause(other) != cause {
			t.Errorf("got %v, %v, want that the time is over, and the cause", other.Err(), context.Cause(other))
		}
		cancelled, cancelNow := WithTimeout(t.Context(), time.Second)
		cancelNow()
		if cancelled.Err() != context.Canceled {
			t.Errorf("got %v, want that it is cancelled", cancelled.Err())
		}
	})
	if _, ok := End(context.Background()); ok {
		t.Error("a context without a timeout has an end")
	}
}

// A dial that times out returns a timeout error.
func TestDialTimesOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := WithTimeout(t.Context(), 0)
	defer cancel()
	<-ctx.Done()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", l.Addr().String())
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() || errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, %v, want a timeout", c, err)
	}
}

// A child of a timed-out context returns a timeout error, so a dial with the child does too.
func TestTimeoutReachesOtherContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("too slow")
		ctx, cancel := WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		plain, cancelPlain := context.WithCancel(ctx)
		defer cancelPlain()
		longer, cancelLonger := WithTimeout(plain, time.Minute)
		defer cancelLonger()
		valued := context.WithValue(longer, cause, cause)
		for _, c := range []context.Context{ctx, plain, longer, valued} {
			<-c.Done()
			if c.Err() != context.DeadlineExceeded || context.Cause(c) != cause {
				t.Errorf("got %v, %v, want that the time is over, and the cause", c.Err(), context.Cause(c))
			}
		}
		given, cancelGiven := WithTimeout(t.Context(), time.Second)
		derived, cancelDerived := context.WithCancel(given)
		defer cancelDerived()
		cancelGiven()
		<-derived.Done()
		if derived.Err() != context.Canceled {
			t.Errorf("got %v, want that it is cancelled", derived.Err())
		}
	})
}
