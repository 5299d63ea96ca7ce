package discovery

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// socketInstance returns a passing instance on the node n of dc1 that listens on a Unix socket.
func socketInstance(id, path string) *entry {
	e := instance(id, "", 0)
	e.Service.SocketPath, e.Node.Datacenter = path, "dc1"
	return e
}

// A Unix socket is an endpoint only if the query allows its path, and only on the agent's own node.
func TestWhichUnixSocketsAreEndpoints(t *testing.T) {
	here := ownNode{name: "n", datacenter: "dc1"}
	elsewhere := socketInstance("a", "/run/app/a")
	elsewhere.Node.Node = "m"
	otherDatacenter := socketInstance("a", "/run/app/a")
	otherDatacenter.Node.Datacenter = "dc2"
	imported := socketInstance("a", "/run/app/a")
	imported.Node.PeerName = "peer"
	both := socketInstance("a", "/run/app/a")
	both.Service.Address, both.Service.Port = "10.0.0.1", 80
	app := []string{"/run/app/*", "/srv/one"}
	for _, tt := range []struct {
		name     string
		e        *entry
		patterns []string
		here     ownNode
		want     string // the endpoint's address, or a part of the reason why there is none
	}{
		{"allowed", socketInstance("a", "/run/app/a"), app, here, "unix:///run/app/a"},
		{"by another pattern", socketInstance("a", "/srv/one"), app, here, "unix:///srv/one"},
		{"with an address, too", both, app, here, "unix:///run/app/a"},
		{"no patterns", socketInstance("a", "/run/app/a"), nil, here, "no socket_paths"},
		{"another path", socketInstance("a", "/run/docker.sock"), app, here, "docker.sock, which socket_paths does"},
		{"a folder below", socketInstance("a", "/run/app/b/a"), app, here, "socket_paths does not"},
		{"out of the folder", socketInstance("a", "/run/app/../docker.sock"), app, here, `".."`},
		{"two slashes", socketInstance("a", "/run/app//a"), app, here, "/run/app//a\": the path has"},
		{"relative", socketInstance("a", "run/app/a"), app, here, "absolute"},
		{"abstract", socketInstance("a", "@app"), []string{"*"}, here, "absolute"},
		{"too long", socketInstance("a", "/run/app/"+strings.Repeat("a", 100)), app, here, "109 bytes"},
		{"a line break", socketInstance("a", "/run/app/a\n"), app, here, "cannot be printed"},
		{"the folder itself", socketInstance("a", "/run/app/"), app, here, "a slash too many"},
		{"another node", elsewhere, app, here, "of another node"},
		{"another datacenter", otherDatacenter, app, here, "of another node"},
		{"of a peer", imported, app, here, "of another node"},
		{"node not known", socketInstance("a", "/run/app/a"), app, ownNode{err: errors.New("denied")}, "not known"},
		{"no node", socketInstance("a", "/run/app/a"), app, ownNode{}, "of another node"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := convert([]*entry{tt.e}, rules{statuses: passingOnly, socketPaths: tt.patterns, here: tt.here})
			if strings.HasPrefix(tt.want, "unix://") {
				if len(in.endpoints) != 1 || in.endpoints[0].Address() != tt.want || in.bad != nil {
					t.Errorf("got %+v, want %s", in, tt.want)
				}
				return
			}
			why := in.bad[in.all[0].ID]
			if len(in.endpoints) != 0 || in.all[0].Out != OutAddress || !strings.Contains(why, tt.want) {
				t.Errorf("got %+v, want none because of %q", in, tt.want)
			}
		})
	}
}

// Two registrations of one socket are one endpoint.
func TestUnixSocketRegisteredTwice(t *testing.T) {
	a, b, c := socketInstance("a", "/run/app/a"), socketInstance("b", "/run/app/a"), socketInstance("c", "/run/app/c")
	all := []*entry{a, b, c}
	in := convert(all, rules{statuses: passingOnly, socketPaths: []string{"/run/app/*"},
		here: ownNode{name: "n", datacenter: "dc1"}})
	if got := fmt.Sprint(ids(in.endpoints)); got != "[n/a n/c]" || in.duplicates != 1 {
		t.Errorf("got %s and %d duplicates", got, in.duplicates)
	}
}

// A real agent says which node it is, and answers with the path of the socket.
func TestRealConsulWithUnixSockets(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "")
	dir := t.TempDir()
	r := followNew(t, ConsulOptions{Address: a.HTTP, StateDir: dir, Watches: []Watch{
		{Service: "db", Query: Query{SocketPaths: []string{"/run/app/*"}}, Guard: Guard{Hold: -1}},
		{Service: "open", Query: Query{Service: "db"}, Guard: Guard{Hold: -1}},
	}})
	for _, path := range []string{"/run/app/a", "/run/docker.sock"} {
		a.register(&api.AgentServiceRegistration{Name: "db", ID: path, SocketPath: path})
	}
	_, err := a.api.Catalog().Register(&api.CatalogRegistration{Node: "elsewhere", Address: "10.0.0.1",
		Service: &api.AgentService{Service: "db", ID: "far", SocketPath: "/run/app/far"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "elsewhere/far listens on a Unix socket of another node, n//run/app/a, " +
		"n//run/docker.sock listens on the Unix socket /run/docker.sock, which socket_paths does not allow"
	shown := func(service string) string {
		x, _ := r.consul.Explain(service)
		var all []string
		for _, one := range x.Tiers[0].Instances {
			all = append(all, strings.TrimSpace(one.ID+" "+one.Detail))
		}
		return strings.Join(all, ", ")
	}
	testproc.Await(t, want, func() bool { return shown("db") == want })
	testproc.Await(t, `all sockets in "open", without socket_paths`, func() bool {
		return strings.Count(shown("open"), "no socket_paths") == 3
	})
	got, err := r.consul.Look(t.Context(), Query{Service: "db", SocketPaths: []string{"/run/docker.sock"}})
	if err != nil || len(got) != 3 || got[0].Out == "" || got[1].Out == "" || got[2].Out != "" {
		t.Errorf("got %+v, %v, want only the last to be in", got, err)
	}
	r.stop() // saves the sets

	offline := followNew(t, ConsulOptions{Address: a.HTTP, StateDir: dir, Watches: []Watch{
		{Service: "db", Query: Query{SocketPaths: []string{"/run/app/*"}}},
		{Service: "less", Query: Query{Service: "db", SocketPaths: []string{"/run/app/b"}}},
	}})
	saved := fmt.Sprint(offline.consul.Saved())
	if !strings.Contains(saved, "/run/app/a") || strings.Contains(saved, "less") {
		t.Errorf("saved sets: got %s, want the socket only where its path is allowed", saved)
	}
}
