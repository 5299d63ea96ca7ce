package mesh

import "testing"

func TestDecisions(t *testing.T) {
	web := clientNamed("web")
	in := func(change func(*Client)) Client { c := web; change(&c); return c }
	exact := Intention{Source: "web", SourceNamespace: "default", Destination: "billing", Precedence: 9}
	with := func(i Intention, change func(*Intention)) Intention { change(&i); return i }
	allows := with(exact, func(i *Intention) { i.Allow = true })
	all := with(allows, func(i *Intention) { i.Source, i.Precedence = "*", 8 })
	const noneDenies = "no intention is about it, and the default policy denies"
	const webDenies = `intention "web" -> "billing" (precedence 9) denies`
	for _, tt := range []struct {
		name   string
		all    []Intention
		allow  bool // by default
		client Client
		want   string
	}{
		{"none, deny", nil, false, web, noneDenies},
		{"none, allow", nil, true, web, "no intention is about it, and the default policy allows"},
		{"deny", []Intention{exact}, true, web, webDenies},
		{"allow", []Intention{allows}, false, web, `intention "web" -> "billing" (precedence 9) allows`},
		{"another source", []Intention{allows}, false, clientNamed("front"), noneDenies},
		{"another case", []Intention{allows}, false, clientNamed("Web"), noneDenies},
		{"a wildcard", []Intention{all}, false, web, `intention "*" -> "billing" (precedence 8) allows`},
		{"a wildcard after a deny", []Intention{exact, all}, true, web, webDenies},
		{"a wildcard before a deny, in the wrong order", []Intention{all, exact}, true, web,
			webDenies},
		{"a wildcard with a higher precedence", []Intention{with(exact, func(i *Intention) { i.Precedence = 6 }), all},
			false, web, `intention "*" -> "billing" (precedence 8) allows`},
		{"L7", []Intention{with(allows, func(i *Intention) { i.L7 = true }), all}, true, web,
			`intention "web" -> "billing" (precedence 9) denies: it is about requests, which lictor does not see`},
		{"of a peer", []Intention{with(allows, func(i *Intention) { i.SourcePeer = "east" })}, false, web,
			noneDenies},
		{"of the default partition by name", []Intention{with(allows, func(i *Intention) {
			i.SourcePartition = "default"
		})}, false, web, `intention "web" -> "billing" (precedence 9) allows`},
		{"of another partition", []Intention{with(allows, func(i *Intention) { i.SourcePartition = "x" })}, false, web,
			noneDenies},
		{"a client in another partition", []Intention{allows}, false, in(func(c *Client) { c.Partition = "x" }),
			noneDenies},
		{"a client in another namespace", []Intention{all}, false, in(func(c *Client) { c.Namespace = "x" }),
			noneDenies},
		{"all namespaces", []Intention{with(all, func(i *Intention) { i.SourceNamespace = "*" })}, false,
			in(func(c *Client) { c.Namespace = "x" }), `intention "*" -> "billing" (precedence 8) allows`},
		{"a client in another datacenter", []Intention{allows}, false, in(func(c *Client) { c.Datacenter = "x" }),
			`intention "web" -> "billing" (precedence 9) allows`},
	} {
		if got := newRules(tt.all, tt.allow).decide(&tt.client); got.String() != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	for d, want := range map[Decision]string{
		{By: ByNothing}:                "consul has not said yet what the intentions are, until then lictor denies",
		{By: ByNothing, Allowed: true}: "consul has not said yet what the intentions are, until then lictor allows",
	} {
		if got := d.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A decision is made in each handshake, and about each open connection when intentions change.
func TestDecisionAllocatesNothing(t *testing.T) {
	i := newStore(Options{}, silent{}).Intentions("billing", false)
	web := clientNamed("web")
	for _, r := range []*rules{nil, newRules([]Intention{{Source: "*", SourceNamespace: "default"}}, true)} {
		if r != nil {
			i.current.Store(r)
		}
		if n := testing.AllocsPerRun(100, func() { i.Decide(web) }); n > 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	all := make([]Intention, 1000)
	for n := range all {
		all[n] = Intention{Source: "service-of-a-name-" + string(rune('a'+n%26)), SourceNamespace: "default",
			Precedence: 9}
	}
	r, web := newRules(all, false), clientNamed("service-of-a-name-0")
	b.ReportAllocs()
	for b.Loop() {
		if r.decide(&web).Allowed {
			b.Fatal("allowed")
		}
	}
}
