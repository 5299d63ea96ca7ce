package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// soakVar is the environment variable that says for how long TestMeshSoak goes on, such as 10m. Without it, the
// authority of the mesh is replaced once:
//
//	LICTOR_E2E_SOAK=10m make e2e RUN=TestMeshSoak
const soakVar = "LICTOR_E2E_SOAK"

// What may stay behind after a soak: the figures of an idle program vary by as much.
const (
	soakDescriptors = 4
	soakGoroutines  = 4
)

// A meshSoak is a Lictor that serves billing to the mesh, and dials it there as web, while everything changes.
type meshSoak struct {
	*lictor
	t       *testing.T
	consul  *consul
	served  *exposed
	configs map[string]*atomic.Pointer[tls.Config] // of clients, by identity
}

// Clients use an exposed service, directly and through the other end of the same Lictor. Meanwhile certificates and the
// authority are replaced, an intention denies one identity and allows it again, and another instance comes and goes. No
// allowed client fails, no connection ends that is not denied, and nothing stays behind.
func TestMeshSoak(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("Consul takes up to 30 s to replace certificates")
	}
	span := time.Duration(0)
	if text := os.Getenv(soakVar); text != "" {
		var err error
		span, err = time.ParseDuration(text)
		must(t, err)
	}
	s := newMeshSoak(t)
	before := s.settle(nil)
	crowd := newCrowd(t)
	kept := s.addClients(crowd)
	crowd.getOn(5)
	rotations := 0
	for began := time.Now(); rotations == 0 || time.Since(began) < span; rotations++ {
		s.rotate(rotations)
		crowd.getOn(20)
		if t.Failed() {
			break
		}
	}
	crowd.end()
	for _, client := range kept {
		must(t, client.Close())
	}
	after := s.settle(before)
	t.Logf("%d replaced authorities; %v; before: %v, after: %v", rotations, crowd, before, after)
}

func newMeshSoak(t *testing.T) *meshSoak {
	t.Helper()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "billing", "billing", startEcho(t, "a").addr)
	block, at := meshAt(t, 2)
	s := &meshSoak{t: t, consul: c, configs: map[string]*atomic.Pointer[tls.Config]{}}
	s.lictor = runLictor(t, consulBlock(c)+block+expose("billing")+meshService("billing"))
	s.served = &exposed{lictor: s.lictor, consul: c, at: at}
	c.awaitSidecars(t, "billing", 1)
	for _, name := range []string{"web", "api"} {
		s.configs[name] = &atomic.Pointer[tls.Config]{}
	}
	s.renew()
	awaitServed(t, at, s.configs["web"].Load(), "a")
	awaitRotation(t, s.addr(t, "billing"), "a")
	return s
}

// renew gives the clients the certificates and the authorities of now.
func (s *meshSoak) renew() {
	s.t.Helper()
	for name, config := range s.configs {
		config.Store(s.consul.as(s.t, name, "billing"))
	}
}

// addClients adds clients and changes of an intention. It returns the connections that stay open.
func (s *meshSoak) addClients(crowd *crowd) (kept []*meshClient) {
	for range 2 {
		crowd.add("mesh client", func(int) error {
			_, err := askMesh(s.t.Context(), s.served.at, s.configs["web"].Load())
			return err
		})
		crowd.add("local client", func(int) error {
			name, err := ask(s.t.Context(), s.addr(s.t, "billing"))
			if err == nil && name != "a" && name != "b" {
				err = fmt.Errorf("served by %q", name)
			}
			return err
		})
		client := mustDialMesh(s.t, s.served.at, s.configs["web"].Load())
		kept = append(kept, client)
		crowd.add("echoed line", func(i int) error { return client.echo(fmt.Sprint("echo ", i)) })
	}
	pause := time.NewTicker(20 * time.Millisecond)
	s.t.Cleanup(pause.Stop)
	crowd.add("changed intention", func(i int) error {
		<-pause.C
		source := allows("api")
		if i%2 == 1 {
			source = denies("api")
		}
		_, _, err := s.consul.api.ConfigEntries().Set(intentionsOf("billing", source), nil)
		return err
	})
	crowd.add("deniable client", func(i int) error {
		client, err := dialMesh(s.t.Context(), s.served.at, s.configs["api"].Load())
		if err != nil {
			return nil
		}
		for n := 0; n < i%100 && client.echo("hello") == nil; n++ {
		}
		_ = client.Close()
		return nil
	})
	return kept
}

// rotate makes Consul use another authority, and waits until Lictor and the clients have certificates of it.
func (s *meshSoak) rotate(n int) {
	s.t.Helper()
	old := map[string]string{}
	for name := range s.configs {
		old[name] = s.consul.leaf(s.t, name)
	}
	billing := s.consul.leaf(s.t, "billing")
	config, _, err := s.consul.api.Connect().CAGetConfig(nil)
	must(s.t, err)
	config.Config["PrivateKeyType"], config.Config["PrivateKeyBits"] = "rsa", 2048
	if n%2 == 1 {
		config.Config["PrivateKeyType"], config.Config["PrivateKeyBits"] = "ec", 256
	}
	_, err = s.consul.api.Connect().CASetConfig(config, nil)
	must(s.t, err)
	s.changeInstances(n)
	within(s.t, 2*patience, "new certificates", func() error {
		for name, before := range old {
			if s.consul.leaf(s.t, name) == before {
				return fmt.Errorf("%s has the former one", name)
			}
		}
		if s.consul.leaf(s.t, "billing") == billing {
			return errors.New("billing has the former one")
		}
		return nil
	})
	s.renew()
	for _, name := range []string{"web", "billing"} {
		s.awaitAnswer(s.t, "mesh status "+name, 0, s.consul.leaf(s.t, name))
	}
}

// changeInstances makes a second instance come and go.
func (s *meshSoak) changeInstances(n int) {
	s.t.Helper()
	id := fmt.Sprint("billing-", n)
	other := startEcho(s.t, "b")
	must(s.t, s.consul.api.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: "billing",
		Address: other.addr.Addr().String(), Port: int(other.addr.Port())}))
	s.consul.awaitSidecars(s.t, "billing", 2)
	must(s.t, s.consul.api.Agent().ServiceDeregister(id))
	s.consul.awaitSidecars(s.t, "billing", 1)
}

// A meshRest is what a Lictor holds while all is quiet.
type meshRest struct{ connections, descriptors, goroutines int }

func (r *meshRest) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines", r.descriptors, r.goroutines)
}

// settle waits until no client is connected, and what Lictor holds stays the same for longer than metrics do. If before
// is not nil, settle also waits until that is hardly more.
func (s *meshSoak) settle(before *meshRest) *meshRest {
	s.t.Helper()
	var rest meshRest
	var since time.Time
	within(s.t, 2*patience, "all is quiet", func() error {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Pid()))
		if err != nil {
			return err
		}
		now := meshRest{s.metric(s.t, `lictor_connections_active{service="billing"}`) +
			s.metric(s.t, `lictor_connections_active{service="mesh:billing"}`), len(entries),
			s.metric(s.t, "go_goroutines")}
		if now != rest {
			rest, since = now, time.Now()
		}
		switch {
		case now.connections > 0:
			return fmt.Errorf("%d connections", now.connections)
		case before != nil && now.descriptors > before.descriptors+soakDescriptors,
			before != nil && now.goroutines > before.goroutines+soakGoroutines:
			return fmt.Errorf("%v, and %v before", &now, before)
		case time.Since(since) < 2*time.Second:
			return errors.New("it changes still")
		}
		return nil
	})
	return &rest
}
