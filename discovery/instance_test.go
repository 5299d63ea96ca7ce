package discovery

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/lb"
)

// instance returns an entry in the form in which Consul describes an instance.
func instance(id, address string, port int, statuses ...string) *entry {
	e := &entry{
		Node:    &entryNode{Node: "n", Address: "10.9.9.9"},
		Service: &entryService{ID: id, Address: address, Port: port, Weights: weights{Passing: 1, Warning: 1}},
	}
	for i, s := range statuses {
		e.Checks = append(e.Checks, check{CheckID: fmt.Sprint("c", i), Status: s})
	}
	return e
}

func TestAddressOfAnInstance(t *testing.T) {
	tests := []struct {
		name, address, node string
		port                int
		want                string // lb.Endpoint.Address, or a part of the reason why there is none
		bad                 bool
	}{
		{"the service's own", "10.0.0.7", "10.9.9.9", 80, "10.0.0.7:80", false},
		{"the node's if it has none", "", "10.9.9.9", 80, "10.9.9.9:80", false},
		{"the node's if it is blank", "  ", "10.9.9.9", 80, "10.9.9.9:80", false},
		{"spaces", "  10.0.0.3 ", "10.9.9.9", 80, "10.0.0.3:80", false},
		{"IPv6", "2001:db8::7", "", 80, "[2001:db8::7]:80", false},
		{"IPv6 in brackets", "[::1]", "", 80, "[::1]:80", false},
		{"IPv6 with zone", "fe80::1%eth0", "", 80, "[fe80::1%eth0]:80", false},
		{"IPv4 in IPv6", "::ffff:10.0.0.7", "", 80, "10.0.0.7:80", false},
		{"host name", "db.example.com", "", 5432, "db.example.com:5432", false},
		{"host name with final dot", "db.example.com.", "", 5432, "db.example.com.:5432", false},
		{"host name of the node", "", "www.google.com", 80, "www.google.com:80", false},
		{"short host name", "db_1-a", "", 80, "db_1-a:80", false},
		{"highest port", "10.0.0.7", "", 65535, "10.0.0.7:65535", false},
		{"port 0", "10.0.0.7", "", 0, "port 0", true},
		{"port below 0", "10.0.0.7", "", -1, "port -1", true},
		{"port too high", "10.0.0.7", "", 70000, "port 70000", true},
		{"address with port", "10.0.0.1:99", "10.9.9.9", 80, "neither", true},
		{"address too long", "10.0.0.1.2", "", 80, "neither", true},
		{"address too short", "10.0.1", "", 80, "neither", true},
		{"octet too high", "10.0.0.256", "", 80, "neither", true},
		{"URL", "http://db", "", 80, "neither", true},
		{"name in brackets", "[db]", "", 80, "neither", true},
		{"name with space", "d b", "", 80, "neither", true},
		{"empty label", "a..b", "", 80, "neither", true},
		{"option", "-db", "", 80, "neither", true},
		{"not ASCII", "dätäbase", "", 80, "neither", true},
		{"label too long", strings.Repeat("a", 64), "", 80, "neither", true},
		{"strange zone", "fe80::1%a]b", "", 80, "zone", true},
		{"wildcard", "0.0.0.0", "", 80, "not that of a host", true},
		{"IPv6 wildcard", "::", "", 80, "not that of a host", true},
		{"multicast", "224.0.0.1", "", 80, "not that of a host", true},
		{"IPv6 multicast", "[ff02::1]", "", 80, "not that of a host", true},
		{"broadcast", "255.255.255.255", "", 80, "not that of a host", true},
		{"broadcast in IPv6's clothes", "::ffff:255.255.255.255", "", 80, "not that of a host", true},
		{"none at all", "", "", 80, "no address", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := instance("a", tt.address, tt.port)
			e.Node.Address = tt.node
			in := convert([]*entry{e}, rules{statuses: passingOnly})
			if tt.bad {
				if why := in.bad["n/a"]; !strings.Contains(why, tt.want) || len(in.endpoints) != 0 {
					t.Errorf("got %+v, want bad because of %q", in, tt.want)
				}
				return
			}
			if len(in.endpoints) != 1 || in.endpoints[0].Address() != tt.want || in.bad != nil {
				t.Errorf("got %+v, want %s", in, tt.want)
			}
		})
	}
}

func TestInstancesThatAreNoAddressAreBad(t *testing.T) {
	socket := instance("a", "10.0.0.1", 80)
	socket.Service.SocketPath = "/run/a.sock"
	noNode, noService := instance("b", "10.0.0.2", 80), instance("c", "10.0.0.3", 80)
	noNode.Node, noService.Service = nil, nil
	in := convert([]*entry{socket, noNode, noService, nil, instance("d", "10.0.0.4", 80)}, rules{statuses: passingOnly})
	if len(in.endpoints) != 1 || in.endpoints[0].ID != "n/d" {
		t.Errorf("endpoints %v", in.endpoints)
	}
	want := map[string]string{
		"n/a": "listens on a Unix socket, and the consul block has no socket_paths that allow it",
		"/b":  "has no node or no service",
		"n/":  "has no node or no service",
		"/":   "has no node or no service",
	}
	if diff := cmp.Diff(want, in.bad); diff != "" {
		t.Error(diff)
	}
}

func TestWeightFollowsStatus(t *testing.T) {
	both := []string{api.HealthPassing, api.HealthWarning}
	tests := []struct {
		name     string
		weights  weights
		checks   []string
		statuses []string
		want     int // 0: not in the set
	}{
		{"passing", weights{Passing: 3, Warning: 1}, []string{"passing", "passing"}, passingOnly, 3},
		{"no checks", weights{Passing: 3, Warning: 1}, nil, passingOnly, 3},
		{"no weights", weights{}, []string{"passing"}, passingOnly, 1},
		{"passing with weight below 1", weights{Passing: -5}, []string{"passing"}, passingOnly, 1},
		{"weight beyond Consul's", weights{Passing: 1 << 30}, []string{"passing"}, passingOnly, 65535},
		{"warning, not wanted", weights{Passing: 3, Warning: 1}, []string{"passing", "warning"}, passingOnly, 0},
		{"warning", weights{Passing: 3, Warning: 2}, []string{"passing", "warning"}, both, 2},
		{"warning gets nothing", weights{Passing: 3}, []string{"warning"}, both, 0},
		{"warning without weights", weights{}, []string{"warning"}, both, 1},
		{"critical", weights{Passing: 3, Warning: 2}, []string{"passing", "critical", "warning"}, both, 0},
		{"critical, wanted", weights{Passing: 3, Warning: 2}, []string{"critical"}, []string{"critical", "passing"}, 3},
		{"unknown status", weights{Passing: 3, Warning: 2}, []string{"weird"}, both, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := instance("a", "10.0.0.1", 80, tt.checks...)
			e.Service.Weights = tt.weights
			got := 0
			if in := convert([]*entry{e}, rules{statuses: tt.statuses}); len(in.endpoints) == 1 {
				got = in.endpoints[0].Weight
			}
			if got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestMaintenanceIsOut(t *testing.T) {
	e := instance("a", "10.0.0.1", 80, "passing")
	e.Checks = append(e.Checks, check{CheckID: "_service_maintenance:a", Status: "critical"})
	if in := convert([]*entry{e}, rules{statuses: passingOnly}); len(in.endpoints) != 0 || in.bad != nil ||
		in.all[0].Out != OutMaintenance {
		t.Errorf("got %+v", in)
	}
}

func TestInstancesKnowWhyTheyAreOut(t *testing.T) {
	failing := instance("a", "10.0.0.1", 80, "passing", "warning", "critical", "critical")
	failing.Checks[2].Name, failing.Checks[2].Output = "http", "HTTP GET: 500\n\x1b[31mInternal Server Error"
	resting := instance("b", "10.0.0.2", 80, "critical")
	resting.Checks = append(resting.Checks, check{CheckID: "_node_maintenance", Status: "critical", Notes: "new disk"})
	warned := instance("c", "10.0.0.3", 80, "warning")
	warned.Service.Weights.Warning = 0
	twice := instance("e", "10.0.0.4", 80)
	all := []*entry{warned, twice, instance("f", "10.0.0.300", 80), instance("g", "", 0, "critical"), resting, failing,
		instance("d", "10.0.0.4", 80)}
	var got []string
	for _, one := range convert(all, rules{statuses: []string{api.HealthPassing, api.HealthWarning}}).all {
		got = append(got, fmt.Sprintf("%s %s %s: %s", one.ID, one.Status, one.Out, one.Detail))
	}
	want := []string{
		`n/a critical status: check "http" is critical: HTTP GET: 500 [31mInternal Server Error`,
		`n/b critical maintenance: check "_node_maintenance" is critical: new disk`,
		`n/c warning weight: check "c0" is warning`,
		`n/d passing : `,
		`n/e passing duplicate: n/d has the same address`,
		`n/f passing address: address "10.0.0.300" is neither an IP address nor a host name`,
		`n/g critical status: check "c0" is critical`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestSameAddressTwiceIsOneEndpoint(t *testing.T) {
	b, a, sick := instance("b", "10.0.0.1", 80), instance("a", "10.0.0.1", 80),
		instance("0", "::ffff:10.0.0.1", 80, "warning")
	b.Service.Weights.Passing, a.Service.Weights.Passing = 9, 2
	other := instance("c", "10.0.0.1", 81)
	all := []*entry{b, sick, a, other}
	for range 10 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		in := convert(all, rules{statuses: []string{api.HealthPassing, api.HealthWarning}})
		got := fmt.Sprint(ids(in.endpoints), in.endpoints[0].Weight, in.duplicates)
		if want := "[n/a n/c] 2 2"; got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
}

func TestIDsAreUnambiguous(t *testing.T) {
	one, two := instance("c", "10.0.0.1", 80), instance("b/c", "10.0.0.2", 80)
	one.Node.Node, two.Node.Node = "a/b", "a"
	three := instance("c", "10.0.0.3", 80)
	three.Node.Node = "a%2Fb"
	in := convert([]*entry{one, two, three}, rules{statuses: passingOnly})
	if got, want := fmt.Sprint(ids(in.endpoints)), "[a%252Fb/c a%2Fb/c a/b/c]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestServiceIDOnTwoNodesIsTwoEndpoints(t *testing.T) {
	one, two := instance("web", "10.0.0.1", 80), instance("web", "10.0.0.2", 80)
	two.Node.Node = "m"
	in := convert([]*entry{one, two}, rules{statuses: passingOnly})
	if got, want := fmt.Sprint(ids(in.endpoints)), "[m/web n/web]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func ids(endpoints []lb.Endpoint) []string {
	var all []string
	for _, e := range endpoints {
		all = append(all, e.ID)
	}
	return all
}

// FuzzEntries checks that no answer makes convert panic, and that each endpoint can be dialled.
func FuzzEntries(f *testing.F) {
	f.Add(entriesJSON("a 80", "b 0", "a 81"))
	f.Add(`[null,{},{"Node":{}},{"Service":{"Port":1}},{"Node":null,"Service":null,"Checks":null}]`)
	f.Add(`[{"Node":{"Node":"a/%","Address":" [::1] "},` +
		`"Service":{"ID":"/","Port":65535,"Weights":{"Passing":-9}},"Checks":[null]}]`)
	f.Add(`[{"Node":{},"Service":{"Port":1,"Address":"a"},"Checks":[{"Definition":null}]}]`)
	for _, address := range []string{"10.0.0.1:99", "::ffff:1.2.3.4%x", "fe80::1%", "a.b.", "0.0.0.0", "[db]"} {
		b, _ := json.Marshal([]*entry{instance("a", address, 80, "passing", "warning")})
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, body string) {
		entries, err := trimmed([]byte(body))
		if parsed, parseErr := newParser(fieldRule{}).parse([]byte(body)); (parseErr == nil) != (err == nil) {
			t.Errorf("in parts %d entries, %v; as a whole %d, %v", len(parsed), parseErr, len(entries), err)
		} else if diff := cmp.Diff(entries, parsed); diff != "" && len(entries) > 0 {
			t.Errorf("in parts it differs (-whole +parts):\n%s", diff)
		}
		if err != nil {
			return
		}
		in := convert(entries, rules{statuses: []string{api.HealthPassing, api.HealthWarning}})
		if n := len(in.endpoints) + len(in.bad) + in.duplicates; n > len(entries) {
			t.Errorf("%d instances of %d entries", n, len(entries))
		}
		if !slices.IsSortedFunc(in.endpoints, func(a, b lb.Endpoint) int { return strings.Compare(a.ID, b.ID) }) {
			t.Errorf("not sorted: %v", in.endpoints)
		}
		addresses, seen := map[string]bool{}, map[string]bool{}
		for _, e := range in.endpoints {
			host, port, err := net.SplitHostPort(e.Address())
			if err != nil || host == "" || port == "0" || e.Addr.Port() == 0 || e.Weight < 1 ||
				(e.Host == "") != e.Addr.Addr().IsValid() {
				t.Errorf("bad endpoint %+v", e)
			}
			if addresses[e.Address()] || seen[e.ID] {
				t.Errorf("twice: %+v", e)
			}
			addresses[e.Address()], seen[e.ID] = true, true
		}
	})
}
