package daemon

import (
	"fmt"
	"testing"
	"time"
)

// A client that comes again and again has one event in a minute. Many clients together have few events, and few are
// remembered.
func TestForbiddenClientsHaveFewEvents(t *testing.T) {
	var f forbidden
	begin := time.Unix(1, 0)
	web := forbiddenClient{service: "mesh:hello", identity: "web"}
	for i, tt := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {0, 0}, {59 * time.Second, 0}, {time.Minute, 3}, {time.Minute, 0}} {
		if got := f.count(web, begin.Add(tt.after)); got != tt.want {
			t.Errorf("attempt %d after %v: got %d, want %d", i, tt.after, got, tt.want)
		}
	}
	told, now := 0, begin.Add(time.Hour)
	for i := range 2 * maxForbidden {
		told += f.count(forbiddenClient{service: "mesh:hello", identity: fmt.Sprint(i)}, now)
	}
	if told != forbiddenAtOnce || len(f.all) > maxForbidden {
		t.Errorf("%d events, and %d clients are remembered", told, len(f.all))
	}
	if got := f.count(web, now.Add(time.Hour)); got != 1 {
		t.Errorf("later: got %d, want 1", got)
	}
}
