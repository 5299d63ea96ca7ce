package discovery

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestServerNameOfAnInstance(t *testing.T) {
	meta, tag := nameRule{meta: "name"}, nameRule{tag: "name="}
	for _, tt := range []struct {
		what string
		rule nameRule
		meta string // JSON
		tags []string
		want string // the name, or a part of why there is none
	}{
		{"not asked for", nameRule{}, `{"name":"a.test"}`, []string{"name=b.test"}, ""},
		{"in the meta", meta, `{"other":"x","name":"a.test"}`, []string{"name=b.test"}, "a.test"},
		{"an address", meta, `{"name":"10.0.0.1"}`, nil, "10.0.0.1"},
		{"an address of IPv6", meta, `{"name":"2001:db8::1"}`, nil, "2001:db8::1"},
		{"an address with a zone", meta, `{"name":"fe80::1%eth0"}`, nil, "neither"},
		{"another key", meta, `{"Name":"a.test"}`, []string{"name=b.test"}, `its meta has no "name"`},
		{"no meta", meta, ``, nil, `its meta has no "name"`},
		{"null", meta, `null`, nil, `its meta has no "name"`},
		{"no text", meta, `{"name":{}}`, nil, "no"},
		{"meta that is no object", meta, `[1]`, nil, `its meta has no "name"`},
		{"an empty value", meta, `{"name":""}`, nil, `"name" in its meta has "", which is neither`},
		{"a wildcard", meta, `{"name":"*.test"}`, nil, "neither"},
		{"several lines", meta, `{"name":"a\nb"}`, nil, `has "a\nb", which is neither`},
		{"a long value", meta, `{"name":"` + strings.Repeat("x", 5000) + `"}`, nil, "neither"},
		{"in a tag", tag, `{"name":"a.test"}`, []string{"x", "name=b.test", "name=c.test"}, "b.test"},
		{"in the last of many tags", tag, "", append(slices.Repeat([]string{"x"}, 200), "name=b.test"), "b.test"},
		{"in a long tag", tag, "", []string{"name=" + strings.Repeat("long.", 40) + "test"},
			strings.Repeat("long.", 40) + "test"},
		{"the first tag is wrong", tag, "", []string{"name=*", "name=c.test"}, `"name=" has "*", which is neither`},
		{"another case", tag, "", []string{"Name=a.test"}, `it has no tag that begins with "name="`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			text := `{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"a","Port":80`
			if tt.meta != "" {
				text += `,"Meta":` + tt.meta
			}
			tags, _ := json.Marshal(tt.tags)
			body := []byte("[" + text + `,"Tags":` + string(tags) + "}}]")
			rule := fieldRule{names: tt.rule}
			for name, f := range map[string]*parser{"short": newParser(rule), "long": newParser(rule)} {
				parse := f.entriesIn
				if name == "long" {
					parse = f.parse
				}
				for range 2 { // the second time, the entry is known
					entries, err := parse(body)
					if err != nil {
						t.Fatal(err)
					}
					checkServerName(t, convert(entries, rules{statuses: passingOnly}), tt.rule, tt.want)
				}
			}
		})
	}
}

// checkServerName checks the only instance of in: want is its ServerName, or a part of why it has none.
func checkServerName(t *testing.T, in instances, r nameRule, want string) {
	t.Helper()
	if len(in.endpoints) != 1 {
		t.Fatalf("got %+v, want one endpoint", in)
	}
	name, why := in.endpoints[0].ServerName, in.all[0].NoServerName
	switch {
	case (name+why == "") != (r == nameRule{}), name != "" && why != "":
		t.Errorf("got name %q, and none because %q", name, why)
	case name != want && !strings.Contains(why, want), len(why) > 300, strings.Contains(why, "\n"):
		t.Errorf("got name %q, and none because %q, want %q", name, why, want)
	}
}

// Services with the same query and different keys have different names. They follow changes, and are saved.
func TestRealConsulWithServerNames(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "")
	dir := t.TempDir()
	watches := []Watch{
		{Service: "meta", Query: Query{Service: "web", ServerNameMeta: "name"}},
		{Service: "other", Query: Query{Service: "web", ServerNameMeta: "other"}},
		{Service: "tag", Query: Query{Service: "web", ServerNameTag: "name="}},
		{Service: "none", Query: Query{Service: "web"}},
	}
	r := followNew(t, ConsulOptions{Address: a.HTTP, StateDir: dir, Watches: watches})
	web := &api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80, Tags: []string{"name=tag.test"},
		Meta: map[string]string{"name": "meta.test", "other": "-"}}
	a.register(web)
	names := func(c *Consul) string {
		all := map[string]string{}
		for _, s := range c.Saved() {
			for _, e := range s.Endpoints {
				all[s.Service] = e.ServerName
			}
		}
		return fmt.Sprint(all)
	}
	await := func(want string) {
		t.Helper()
		var got string
		defer func() {
			if got != want {
				t.Logf("got %s", got)
			}
		}()
		testproc.Await(t, want, func() bool {
			all := map[string]string{}
			for _, w := range watches {
				x, _ := r.consul.Explain(w.Service)
				for _, one := range x.Tiers[0].Instances {
					all[w.Service] = one.ServerName
				}
			}
			got = fmt.Sprint(all)
			return got == want
		})
	}
	await("map[meta:meta.test none: other: tag:tag.test]")
	web.Meta["name"], web.Meta["other"], web.Tags = "new.test", "other.test", nil
	a.register(web)
	want := "map[meta:new.test none: other:other.test tag:]"
	await(want)
	x, _ := r.consul.Explain("tag")
	if why := x.Tiers[0].Instances[0].NoServerName; why != `it has no tag that begins with "name="` {
		t.Errorf("got %q", why)
	}
	r.stop() // saves the sets
	offline := followNew(t, ConsulOptions{Address: a.HTTP, StateDir: dir, Watches: watches})
	if got := names(offline.consul); got != want {
		t.Errorf("saved: got %s, want %s", got, want)
	}
}
