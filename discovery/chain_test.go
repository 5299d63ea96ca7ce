package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// chainJSON returns Consul's answer for a chain that begins with a node of a type. Each target is an ID such as
// "web@dc1", with more fields as JSON after a space.
func chainJSON(kind string, targets ...string) string {
	var ids, all []string
	for _, t := range targets {
		id, more, _ := strings.Cut(t, " ")
		name, datacenter, _ := strings.Cut(id, "@")
		if more != "" {
			more = "," + more
		}
		ids = append(ids, fmt.Sprintf("%q", id))
		all = append(all, fmt.Sprintf(`%q:{"ID":%q,"Service":%q,"Namespace":"default","Partition":"default",`+
			`"Datacenter":%q,"SNI":"%s.default.%s.internal.td.consul"%s}`,
			id, id, name, datacenter, name, datacenter, more))
	}
	return fmt.Sprintf(`{"Chain":{"Datacenter":"dc1","StartNode":"start","Nodes":{"start":{"Type":%q,"Resolver":`+
		`{"ConnectTimeout":"5s","Target":%s,"Failover":{"Targets":[%s]}}}},"Targets":{%s}}}`,
		kind, ids[0], strings.Join(ids[1:], ","), strings.Join(all, ","))
}

const subsetV1 = `"ServiceSubset":"v1","Subset":{"Filter":"Service.Meta.v == 1","OnlyPassing":true}`

// A chainTest is a discovery chain with what Lictor makes of it.
type chainTest struct {
	what, chain string
	watch       Query
	home        home
	want        string // the queries of the tiers with their server names, or a part of the error
}

func resolver(targets ...string) string { return chainJSON("resolver", targets...) }

const gatewayMode = `"MeshGateway":{"Mode":"local"}`

func TestChainsAndTheirTiers(t *testing.T) {
	const inDC2 = "web in datacenter dc2: web in the mesh dc=dc2 statuses=passing,warning address=wan, " +
		"web.default.dc2.internal.td.consul"
	for _, tt := range []chainTest{
		{"a service", resolver("web@dc1"), Query{}, home{},
			"web: web in the mesh statuses=passing,warning, web.default.dc1.internal.td.consul"},
		{"a redirect", resolver("db@dc1"), Query{}, home{},
			"db: db in the mesh statuses=passing,warning, db.default.dc1.internal.td.consul"},
		{"a subset", resolver("web@dc1 " + subsetV1), Query{}, home{},
			"v1.web: web in the mesh filter=Service.Meta.v == 1, web.default.dc1.internal.td.consul"},
		{"a subset, a filter and tags", resolver("web@dc1 " + subsetV1),
			Query{Filter: "Service.Port == 7 or x", Tags: []string{"T"}}, home{},
			"v1.web: web in the mesh tags=t filter=(Service.Meta.v == 1) and (Service.Port == 7 or x), " +
				"web.default.dc1.internal.td.consul"},
		{"statuses of the configuration", resolver("web@dc1"), Query{Statuses: []string{"critical"}}, home{},
			"web: web in the mesh statuses=critical, web.default.dc1.internal.td.consul"},
		{"failover", resolver("web@dc1", "other@dc1", "web@dc2", "other@dc1"), Query{}, home{},
			"web: web in the mesh statuses=passing,warning, web.default.dc1.internal.td.consul; " +
				"other: other in the mesh statuses=passing,warning, other.default.dc1.internal.td.consul; " + inDC2},
		{"compiled for another datacenter", resolver("web@dc1", "web@dc2"), Query{},
			home{asked: "dc1", datacenter: "dc2"},
			strings.ReplaceAll(inDC2, "dc2", "dc1") + "; " + strings.Replace(inDC2, " address=wan", "", 1)},
		{"a server name of its own", resolver(`web@dc1 "SNI":"ext.example.com","External":true`), Query{}, home{},
			"web: web in the mesh statuses=passing,warning, ext.example.com"},
		{"a server name that is none", resolver(`web@dc1 "SNI":"a b"`), Query{}, home{},
			"web: web in the mesh statuses=passing,warning, "},
		{"gateways in the own datacenter", resolver("web@dc1 " + gatewayMode), Query{}, home{},
			"web: web in the mesh statuses=passing,warning, web.default.dc1.internal.td.consul"},
		{"the namespace of the configuration", resolver(`web@dc1 "Namespace":"team"`), Query{}, home{namespace: "team"},
			"web: web in the mesh statuses=passing,warning, web.default.dc1.internal.td.consul"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			chain, err := chainIn([]byte(tt.chain))
			if err != nil {
				t.Fatal(err)
			}
			targets, left, err := chain.compile("web", tt.home)
			if err != nil || len(left) > 0 {
				t.Fatal(left, err)
			}
			w := Watch{Service: "s", Query: tt.watch}
			w.Query.Mesh = true
			var got []string
			for _, one := range w.chained(targets) {
				q := one.Query.normalize("")
				got = append(got, fmt.Sprintf("%s: %s, %s", one.name, q, q.sni))
			}
			if text := strings.Join(got, "; "); text != tt.want {
				t.Errorf("got  %q\nwant %q", text, tt.want)
			}
		})
	}
}

func TestChainsThatCannotBeFollowed(t *testing.T) {
	for _, tt := range []chainTest{
		{"a splitter", chainJSON("splitter", "web@dc1"), Query{}, home{}, "begins with a splitter, which needs HTTP"},
		{"a router", chainJSON("router", "web@dc1"), Query{}, home{}, "begins with a router, which needs HTTP"},
		{"a peer", resolver(`web@ "Peer":"east"`, "web@dc1"), Query{}, home{},
			`"web" is in the cluster peering "east"`},
		{"gateways", resolver("web@dc2 "+gatewayMode, "web@dc1"), Query{}, home{},
			`"web in datacenter dc2" is reached through mesh gateways (mode local)`},
		{"gateways of the datacenter asked for", resolver("web@dc1 " + gatewayMode), Query{}, home{asked: "dc1"},
			"through mesh gateways"},
		{"another namespace", resolver(`web@dc1 "Namespace":"team"`), Query{}, home{}, `is in namespace "team"`},
		{"too many targets", resolver(strings.Fields(strings.Repeat("web@dc1 ", 33))...), Query{}, home{},
			"33 targets"},
		{"no start", `{"Chain":{}}`, Query{}, home{}, "not a discovery chain"},
		{"no resolver", `{"Chain":{"StartNode":"a","Nodes":{"a":{"Type":"resolver"}}}}`, Query{}, home{},
			"not a discovery chain"},
		{"no target", `{"Chain":{"StartNode":"a","Nodes":{"a":{"Type":"resolver","Resolver":{"Target":"x"}}}}}`,
			Query{}, home{}, "not a discovery chain"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			chain, err := chainIn([]byte(tt.chain))
			if err != nil {
				t.Fatal(err)
			}
			targets, left, err := chain.compile("web", tt.home)
			if err == nil || len(left) > 0 || !strings.Contains(err.Error(), tt.want) || targets != nil {
				t.Fatalf("got %v and %v, want %q", targets, err, tt.want)
			}
			var cannot *ChainError
			if errors.As(err, &cannot) == (err == errNoChain) {
				t.Errorf("the error is a %T", err)
			}
		})
	}
}

// A target to fail over to that cannot be reached is left out. The others stay, in their order.
func TestTargetsThatAreLeftOut(t *testing.T) {
	const team = `"Namespace":"team"`
	chain, err := chainIn([]byte(resolver("web@dc1", "web@dc2 "+gatewayMode, `db@ "Peer":"east"`, "other@dc1 "+team,
		"last@dc1")))
	if err != nil {
		t.Fatal(err)
	}
	targets, left, err := chain.compile("web", home{})
	if err != nil || len(targets) != 2 || targets[0].service != "web" || targets[1].service != "last" {
		t.Errorf("got %+v, %v", targets, err)
	}
	want := []string{"web in datacenter dc2 is reached through mesh gateways (mode local), ",
		`db is in the cluster peering "east", `, `other is in namespace "team" of partition "default", `}
	if len(left) != len(want) {
		t.Fatalf("left out: %+v", left)
	}
	for i, one := range left {
		if got := one.Name + " " + one.Reason; !strings.HasPrefix(got, want[i]) {
			t.Errorf("got  %q\nwant %q", got, want[i])
		}
	}
}

func TestAnswersThatAreNoChain(t *testing.T) {
	for _, body := range []string{"", "null", "[]", "{}", `{"Chain":null}`, `{"Chain":[]}`,
		`{"Chain":{"Nodes":{"a":null},"StartNode":"a"}}`} {
		chain, err := chainIn([]byte(body))
		if err == nil {
			_, _, err = chain.compile("web", home{})
		}
		if err == nil {
			t.Errorf("%q is a chain", body)
		}
	}
}

// Consul encodes maps in any order. The targets are equal nevertheless, and survive a restart.
func TestTargetsOfAChainAreStable(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var texts []string
		for i := range 1 + random.IntN(6) {
			more := []string{"", " " + subsetV1, ` "External":true,"SNI":"x.test"`}[random.IntN(3)]
			texts = append(texts, fmt.Sprintf("s%d@dc%d%s", i, 1+random.IntN(3), more))
		}
		body := []byte(chainJSON("resolver", texts...))
		chain, err := chainIn(body)
		if err != nil {
			t.Fatal(err)
		}
		want, _, err := chain.compile("web", home{})
		if err != nil || len(want) != len(texts) {
			t.Fatalf("%q: got %v, %v", texts, want, err)
		}
		var free map[string]any
		if err := json.Unmarshal(body, &free); err != nil {
			t.Fatal(err)
		}
		shuffled, err := json.Marshal(free) // sorts the keys
		if err != nil {
			t.Fatal(err)
		}
		if chain, err = chainIn(shuffled); err != nil {
			t.Fatal(err)
		}
		if got, _, err := chain.compile("web", home{}); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q: got %v, %v, want %v", texts, got, err, want)
		}
		file, err := encodeSaved(saved{chains: map[string][]target{"k": want}})
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeSaved(file)
		if err != nil || !slices.Equal(back.chains["k"], want) {
			t.Fatalf("%q: saved and read: got %v, %v", texts, back.chains, err)
		}
	}
}

func TestSavedChainsThatConsulDoesNotHave(t *testing.T) {
	for _, chains := range []string{`{"k":[]}`, `{"k":[{}]}`, `{"k":[{"service":"a","sni":"a b"}]}`, `{"k":7}`} {
		if all, err := decodeSaved(sealed(`{"sets":[],"chains":` + chains + `}`)); err == nil || all.chains != nil {
			t.Errorf("%s: got %v, %v", chains, all.chains, err)
		}
	}
}

func TestWatchesThatMakeNoSense(t *testing.T) {
	for _, w := range []Watch{
		{Service: "a", Chain: true},
		{Service: "a", Chain: true, Query: Query{Mesh: true}, Next: []Tier{{}}},
		{Service: "a", Query: Query{Mesh: true, Peer: "p"}},
		{Service: "a", Query: Query{Mesh: true, Prepared: "p"}},
		{Service: "a", Next: []Tier{{Query: Query{Mesh: true, Peer: "p"}}}},
	} {
		if err := checkWatches([]Watch{w}); err == nil {
			t.Errorf("%+v is allowed", w)
		}
	}
}
