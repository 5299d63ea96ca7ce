package discovery

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Reports that come at about the same time are told together, soon and in order.
func TestChorus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		begin := time.Now()
		c := newChorus(func(all []int) { told = append(told, fmt.Sprint(time.Since(begin), all)) })
		c.add(1)
		c.add(2)
		time.Sleep(chorusQuiet - 1)
		c.add(3)
		time.Sleep(2 * chorusQuiet)
		for i := range 20 { // they come again and again
			c.add(i)
			time.Sleep(chorusQuiet * 9 / 10)
		}
		c.add(20)
		c.close()
		c.add(21)
		time.Sleep(time.Minute)
		synctest.Wait()
		want := []string{"1.999999999s [1 2 3]", "7.999999999s [0 1 2 3 4 5]", "13.399999999s [6 7 8 9 10 11]",
			"18.799999999s [12 13 14 15 16 17]", "20.999999999s [18 19 20]"}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("differs (-want +got):\n%s", diff)
		}
	})
}

// A Consul that has lost all its data makes one line for all services, and so does its return.
func TestLostDataIsLoggedOnceForAllServices(t *testing.T) {
	log := &journal{}
	began := heldReport{
		news: heldBegan, vanished: 2, reasons: map[HoldReason]int{HoldForgotten: 2}, until: time.Unix(0, 0),
	}
	reports := []heldReport{{news: heldEnded, services: []string{"x"}, known: 1}}
	for i := range 300 {
		began.services = []string{fmt.Sprintf("s%03d", 299-i)}
		reports = append(reports, began)
	}
	tellHeld(log.logger(0), reports)
	log.wantOnce(t, `most instances have vanished at once, they stay in use for now: `+
		`service="s000, s001, s002, s003, s004, s005, s006, s007 and 292 more" services=300 vanished=600 left=0 `+
		`reasons="600 forgotten"`, "no vanished instances are kept in use any more: service=x instances=1\n",
		"stay in use")
}

// Services that lose a datacenter together share a line, and others do not.
func TestFailoverIsLoggedOnceForAllServices(t *testing.T) {
	log := &journal{}
	var reports []failoverReport
	for i := range 3 {
		reports = append(reports,
			failoverReport{service: fmt.Sprint("s", 2-i), to: "dc2", reason: "dc1 is empty", there: 2, left: 1},
			failoverReport{service: fmt.Sprint("t", i), to: "dc1", from: "dc2", back: true})
	}
	reports = append(reports, failoverReport{service: "u", to: "dc3", reason: "dc1 is empty", there: 1})
	tellFailover(log.logger(0), reports)
	log.wantOnce(t, `service fails over: service="s0, s1, s2" to=dc2 services=3 reason="dc1 is empty" `+
		`instances_there=6 left_before_it=3`,
		`service is back at an earlier source: service="t0, t1, t2" to=dc1 services=3 from=dc2`,
		`service fails over: service=u to=dc3 reason="dc1 is empty" instances_there=1 left_before_it=0`)
}
