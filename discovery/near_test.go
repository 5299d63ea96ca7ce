package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestWhichInstancesAreNear(t *testing.T) {
	here := ownNode{name: "n", datacenter: "dc1", locality: locality{"eu", "eu-a"},
		meta: map[string]string{"rack": "7"}}
	bare, unknown := ownNode{name: "n", datacenter: "dc1"}, ownNode{err: errors.New("denied")}
	const near = `"Locality":{"Region":"eu","Zone":"eu-a"}`
	for _, tt := range []struct {
		what          string
		prefer        Prefer
		here          ownNode
		node, service string // JSON
		want          string // zone of the instance, and "near"
		own           string // own zone, or a part of why it is not known
	}{
		{"not asked for", Prefer{}, here, near, near, "", ""},
		{"the service's zone", Prefer{By: "zone"}, here, `"Locality":{"Region":"eu","Zone":"eu-b"}`, near,
			"eu/eu-a near", "eu/eu-a"},
		{"the node's zone", Prefer{By: "zone"}, here, near, `"Locality":null`, "eu/eu-a near", "eu/eu-a"},
		{"another zone", Prefer{By: "zone"}, here, near, `"Locality":{"Region":"eu","Zone":"eu-b"}`,
			"eu/eu-b", "eu/eu-a"},
		{"the zone of another region", Prefer{By: "zone"}, here, "", `"Locality":{"Region":"us","Zone":"eu-a"}`,
			"us/eu-a", "eu/eu-a"},
		{"no zone", Prefer{By: "zone"}, here, "", "", "", "eu/eu-a"},
		{"a zone of the configuration", Prefer{By: "zone", Zone: "eu-a"}, unknown, near, "", "eu-a near", "eu-a"},
		{"zone and region of the configuration", Prefer{By: "zone", Region: "us", Zone: "eu-a"}, here, near, "",
			"eu/eu-a", "us/eu-a"},
		{"agent without a zone", Prefer{By: "zone"}, bare, near, "", "eu/eu-a", "no zone in its locality"},
		{"agent without an answer", Prefer{By: "zone"}, unknown, near, "", "eu/eu-a", "does not say where its node is"},
		{"region", Prefer{By: "region"}, here, "", `"Locality":{"Region":"eu","Zone":"eu-b"}`, "eu near", "eu"},
		{"another region", Prefer{By: "region"}, here, "", `"Locality":{"Region":"us"}`, "us", "eu"},
		{"a region of the configuration", Prefer{By: "region", Region: "us"}, bare, near, "", "eu", "us"},
		{"agent without a region", Prefer{By: "region"}, bare, near, "", "eu", "no region in its locality"},
		{"node", Prefer{By: "node"}, here, `"Node":"n"`, "", "n near", "n"},
		{"another node", Prefer{By: "node"}, here, `"Node":"m"`, "", "m", "n"},
		{"a node of another datacenter", Prefer{By: "node"}, here, `"Node":"n","Datacenter":"dc2"`, "", "dc2/n", "n"},
		{"a node of a peer", Prefer{By: "node"}, here, `"Node":"n","PeerName":"east"`, "", "east/n", "n"},
		{"meta of the node", Prefer{By: "meta:rack"}, here, `"Meta":{"rack":"7"}`, `"Meta":{"other":"8"}`,
			"7 near", "7"},
		{"meta of the service", Prefer{By: "meta:rack"}, here, `"Meta":{"rack":"7"}`, `"Meta":{"rack":"8"}`, "8", "7"},
		{"no meta", Prefer{By: "meta:rack"}, here, "", "", "", "7"},
		{"meta that is no text", Prefer{By: "meta:rack"}, here, `"Meta":[7]`, `"Meta":{"rack":{}}`, "", "7"},
		{"long meta", Prefer{By: "meta:rack"}, here, "", `"Meta":{"rack":"` + strings.Repeat("x", 9000) + `"}`,
			strings.Repeat("x", maxTag-3) + "...", "7"},
		{"agent without the meta", Prefer{By: "meta:row"}, here, "", `"Meta":{"row":"1"}`, "1", `has no "row"`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			object := func(parts ...string) string { return strings.TrimRight(strings.Join(parts, ","), ",") }
			body := fmt.Sprintf(`[{"Node":{%s},"Service":{%s}}]`,
				object(`"Node":"n","Datacenter":"dc1","Address":"10.0.0.1"`, tt.node),
				object(`"ID":"a","Port":80`, tt.service))
			q := Query{Prefer: tt.prefer}.normalize("")
			entries, err := newParser(q.fields()).parse([]byte(body))
			if err != nil {
				t.Fatal(err)
			}
			in := (&answer{entries: entries, here: tt.here}).instances(&q)
			if len(in.endpoints) != 1 {
				t.Fatalf("got %+v", in)
			}
			got := in.endpoints[0].Zone
			if in.endpoints[0].Near {
				got += " near"
			}
			own, problem := tt.prefer.own(&tt.here)
			if got != tt.want || own != tt.own && (own != "" || tt.own == "" || !strings.Contains(problem, tt.own)) {
				t.Errorf("got %q, own zone %q %q, want %q and %q", got, own, problem, tt.want, tt.own)
			}
		})
	}
}

// Many watches ask the agent for its node once a minute, and sooner only after a failure.
func TestAgentIsSeldomAskedForItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, answer := 0, status(403, "denied")
		f := &fake{ping: func(r *http.Request) (*http.Response, error) {
			asked++
			return answer(r)
		}}
		client := clientOver(t, ConsulOptions{}.withDefaults(), f)
		var a agentNode
		for _, tt := range []struct {
			after time.Duration
			asked int
			name  string
		}{{0, 1, ""}, {4 * time.Second, 1, ""}, {2 * time.Second, 2, "n"}, {59 * time.Second, 2, "n"},
			{2 * time.Second, 3, "n"}} {
			time.Sleep(tt.after)
			if tt.asked == 2 {
				answer = status(200, `{"Config":{"NodeName":"n"}}`)
			}
			for range 3 {
				if got := a.recent(t.Context(), client); asked != tt.asked || got.name != tt.name ||
					(got.err == nil) != (tt.name != "") {
					t.Errorf("after %v: asked %d times, got %+v, want %d and %q", tt.after, asked, got, tt.asked,
						tt.name)
				}
			}
		}
	})
}

// The localities of a real Consul say which instances are near. They follow changes, and are saved.
func TestRealConsulWithLocalities(t *testing.T) {
	t.Parallel()
	a := startAgent(t, `locality { region = "eu" zone = "eu-a" }
		node_meta { rack = "7" }`)
	dir := t.TempDir()
	watches := []Watch{
		{Service: "node", Query: Query{Service: "web", Prefer: Prefer{By: "node"}}},
		{Service: "rack", Query: Query{Service: "web", Prefer: Prefer{By: "meta:rack"}}},
		{Service: "region", Query: Query{Service: "web", Prefer: Prefer{By: "region"}}},
		{Service: "zone", Query: Query{Service: "web", Prefer: Prefer{By: "zone"}}},
		{Service: "zone-b", Query: Query{Service: "web", Prefer: Prefer{By: "zone", Zone: "eu-b"}}},
	}
	r := followNew(t, ConsulOptions{Address: a.HTTP, StateDir: dir, Watches: watches})
	far := &api.AgentServiceRegistration{Name: "web", ID: "far", Port: 81, Meta: map[string]string{"rack": "8"},
		Locality: &api.Locality{Region: "eu", Zone: "eu-b"}}
	a.register(far)
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "here", Port: 80})
	_, err := a.api.Catalog().Register(&api.CatalogRegistration{Node: "m", Address: "10.0.0.1",
		Service: &api.AgentService{Service: "web", ID: "abroad", Port: 82}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	shown := func(c *Consul) string {
		all := map[string]string{}
		for _, w := range watches {
			x, _ := c.Explain(w.Service)
			var zones []string
			for _, one := range x.Tiers[0].Instances {
				zone := one.ID + "=" + one.Zone
				if one.Near {
					zone += "!"
				}
				zones = append(zones, zone)
			}
			all[w.Service] = strings.Join(zones, " ")
		}
		return fmt.Sprint(all)
	}
	await := func(want string) {
		t.Helper()
		defer func() {
			if t.Failed() {
				t.Logf("got %s", shown(r.consul))
			}
		}()
		testproc.Await(t, want, func() bool { return shown(r.consul) == want })
	}
	await("map[node:m/abroad=m n/far=n! n/here=n! rack:m/abroad= n/far=8 n/here=7! " +
		"region:m/abroad= n/far=eu! n/here=eu! zone:m/abroad= n/far=eu/eu-b n/here=eu/eu-a! " +
		"zone-b:m/abroad= n/far=eu-b! n/here=eu-a]")
	far.Locality, far.Meta = nil, nil
	a.register(far)
	want := "map[node:m/abroad=m n/far=n! n/here=n! rack:m/abroad= n/far=7! n/here=7! " +
		"region:m/abroad= n/far=eu! n/here=eu! zone:m/abroad= n/far=eu/eu-a! n/here=eu/eu-a! " +
		"zone-b:m/abroad= n/far=eu-a n/here=eu-a]"
	await(want)
	for i, own := range []string{"n", "7", "eu", "eu/eu-a", "eu-b"} {
		zone, problem := r.consul.OwnZone(context.Background(), watches[i].Query)
		if s := r.consul.Snapshot()[i]; s.Zone != own || s.NoZone != "" || zone != own || problem != "" {
			t.Errorf("%s: own zone %q %q, now %q %q, want %q", watches[i].Service, s.Zone, s.NoZone, zone, problem, own)
		}
	}
	r.stop() // saves the sets
	offline := followNew(t, ConsulOptions{Address: a.HTTP, StateDir: dir, Watches: watches})
	offline.stop()
	for _, s := range offline.consul.Saved() {
		if s.Service == "zone" && (s.Endpoints[2].Zone != "eu/eu-a" || !s.Endpoints[2].Near || s.Endpoints[0].Near) {
			t.Errorf("saved: got %+v", s.Endpoints)
		}
	}
}

// Without agent:read, no instance is near, and the status says why.
func TestRealConsulThatDoesNotSayItsZone(t *testing.T) {
	t.Parallel()
	a := startAgentWith(t, testconsul.Options{ACL: true})
	policy, _, err := a.api.ACL().PolicyCreate(&api.ACLPolicy{Name: "lictor",
		Rules: `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := a.api.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := followNew(t, ConsulOptions{Address: a.HTTP, Token: token.SecretID, Watches: []Watch{
		{Service: "web", Query: Query{Prefer: Prefer{By: "zone"}}}}})
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})
	r.wantLast(t, "web: n/a=127.0.0.1:80")
	if s := r.status(); s.Zone != "" || !strings.Contains(s.NoZone, "the agent does not say where its node is: ") {
		t.Errorf("got zone %q, %q", s.Zone, s.NoZone)
	}
}
