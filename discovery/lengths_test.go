package discovery

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/lb"
)

const megabyte = 1 << 20

// huge returns a text of a megabyte that begins with a word.
func huge(word string) string { return word + strings.Repeat("ü", megabyte/2) }

// longest returns the length of the longest string in the JSON of v.
func longest(t *testing.T, v any) int {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for part := range strings.SplitSeq(string(text), `"`) {
		most = max(most, len(part))
	}
	return most
}

// Long strings are shortened, and no two instances get the same ID by that.
func TestStringsOfInstancesAreBounded(t *testing.T) {
	good := instance("good", "10.0.0.1", 80)
	longID, other := instance(huge("id"), "10.0.0.2", 80), instance(huge("id")+"x", "10.0.0.3", 80)
	longNode := instance("x", "10.0.0.4", 80)
	longNode.Node.Node = huge("node")
	slashes := instance("s", "10.0.0.5", 80)
	slashes.Node.Node = strings.Repeat("/", maxID)
	longAddress := instance("address", huge("host"), 80)
	longZone := instance("zone", "fe80::1%"+huge("eth"), 80)
	sick := instance("sick", "10.0.0.6", 80, api.HealthCritical)
	sick.Checks[0].Name, sick.Checks[0].Output, sick.Checks[0].Notes = huge("name"), huge("output"), huge("notes")
	odd := instance("odd", "10.0.0.7", 80, huge("status"))
	tagged := instance("tagged", "10.0.0.8", 80)
	for i := range 100_000 {
		tagged.Service.Tags = append(tagged.Service.Tags, fmt.Sprint("tag-", i))
	}
	tagged.Service.Tags[1] = huge("tag")
	entries := []*entry{good, longID, other, longNode, slashes, longAddress, longZone, sick, odd, tagged}
	for _, name := range []string{"as they come", "as they are kept"} {
		if name == "as they are kept" {
			for _, e := range entries {
				e.trim()
			}
		}
		in := convert(entries, rules{statuses: passingOnly})
		if n := longest(t, in.all); n > 1024 {
			t.Errorf("%s: a string of %d bytes is kept", name, n)
		}
		outs := map[Out]int{}
		seen := map[string]bool{}
		for _, one := range in.all {
			outs[one.Out]++
			if seen[one.ID] {
				t.Errorf("%s: two are %s", name, one.ID)
			}
			seen[one.ID] = true
			if len(one.ID) > maxID || len(one.Tags) > maxTags+1 {
				t.Errorf("%s: an ID of %d bytes, %d tags", name, len(one.ID), len(one.Tags))
			}
		}
		if outs[""] != 2 || outs[OutID] != 4 || outs[OutAddress] != 2 || outs[OutStatus] != 2 {
			t.Errorf("%s: out %v, want 2 in, 4 by id, 2 by address, 2 by status", name, outs)
		}
		if len(in.bad) != 6 {
			t.Errorf("%s: %d are bad, want 6: %v", name, len(in.bad), in.bad)
		}
		tags := in.all[slices.IndexFunc(in.all, func(one Instance) bool { return one.ID == "n/tagged" })].Tags
		if len(tags) != maxTags+1 || tags[0] != "tag-0" || tags[maxTags] != "... and 99936 more tags" {
			t.Errorf("%s: %d tags, from %q to %q", name, len(tags), tags[0], tags[len(tags)-1])
		}
	}
}

// Strings within the limits are not changed.
func TestStringsWithinBoundsStay(t *testing.T) {
	e := instance(strings.Repeat("i", maxID-2), "10.0.0.1", 80)
	for i := range maxTags {
		e.Service.Tags = append(e.Service.Tags, fmt.Sprint(i)+strings.Repeat("t", maxTag-2))
	}
	tags := slices.Clone(e.Service.Tags)
	e.trim()
	in := convert([]*entry{e}, rules{statuses: passingOnly})
	if len(in.endpoints) != 1 || len(in.endpoints[0].ID) != maxID || !slices.Equal(in.all[0].Tags, tags) {
		t.Errorf("got %d endpoints, %d tags", len(in.endpoints), len(in.all[0].Tags))
	}
	if e.Service.ID += "i"; convert([]*entry{e}, rules{statuses: passingOnly}).all[0].Out != OutID {
		t.Error("an instance whose ID is one byte too long is not left out")
	}
}

// If many instances are left out at once, the log gets few lines, and no long ones.
func TestLogOfBadInstancesIsBounded(t *testing.T) {
	bubble(t, time.Second, ConsulOptions{}, []reply{ok(20, manyBad(500)...)}, func(t *testing.T, r *rig) {
		log := r.log.String()
		if n := strings.Count(log, "instance left out"); n != maxBadLogged {
			t.Errorf("%d lines, want %d", n, maxBadLogged)
		}
		r.log.wantOnce(t, "more instances left out")
		if !strings.Contains(log, "instances=490") {
			t.Errorf("the log does not say how many more:\n%s", log)
		}
		if s := r.status(); s.Bad != 500 {
			t.Errorf("%d are bad, want 500", s.Bad)
		}
	})
}

// manyBad returns n instances that cannot be dialled.
func manyBad(n int) (instances []string) {
	for i := range n {
		instances = append(instances, fmt.Sprintf("bad-%d 0", i))
	}
	return instances
}

// An endpoint that an old version saved with a long ID is left out. The other endpoints are used.
func TestSavedIDsAreBounded(t *testing.T) {
	file, err := encodeSaved(saved{sets: []savedSet{{query: "q", endpoints: []lb.Endpoint{
		{ID: huge("id"), Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1},
		{ID: "n/a", Addr: netip.MustParseAddrPort("10.0.0.2:80"), Weight: 1},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := decodeSaved(file)
	sets := all.sets
	if err != nil || len(sets) != 1 || len(sets[0].endpoints) != 1 || sets[0].endpoints[0].ID != "n/a" {
		t.Errorf("got %v, %v, want n/a only", sets, err)
	}
}

func TestShortNames(t *testing.T) {
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprint("service-", i))
	}
	if got := shortNames(names[:2]); got != "service-0, service-1" {
		t.Errorf("got %q", got)
	}
	if got := shortNames(names); len(got) > 200 || !strings.HasSuffix(got, "and 992 more") {
		t.Errorf("got %q", got)
	}
}
