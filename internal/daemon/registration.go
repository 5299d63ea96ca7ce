package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/consul"
)

// The ID and the name of Lictor's own service. A host runs one Lictor, so the ID does not distinguish instances.
const (
	ownService = "lictor"
	ownCheck   = "lictor:ready"
)

// If the agent can reach the admin API, the agent's check requests /readyz every ownInterval. Otherwise the check is a
// TTL check, which becomes critical if Lictor does not update it for ownTTL.
const (
	ownTTL       = 15 * time.Second
	ownBeat      = ownTTL / 3 // between two updates, or between two checks that the agent still has the registration
	ownInterval  = 5 * time.Second
	ownReapAfter = 10 * time.Minute // Consul deregisters a service that is critical for this long
	ownPatience  = 2 * time.Second  // limit for the answer to a request
)

// A registration keeps Lictor registered as a service in Consul. If the agent loses the registration, Lictor registers
// again.
type registration struct {
	cfg     config.Consul
	admin   string // address of the admin API; empty if the API has no listener
	version string // version of Lictor
	readyAt string // URL at which the agent can request /readyz; empty if it cannot reach the API
	client  *consul.Client
	log     hclog.Logger
	ready   func() bool
	cancel  context.CancelFunc // ends run
	done    chan struct{}      // closed when run has ended

	mu      sync.Mutex // guards failing
	failing bool       // the last beat failed

	known bool // the agent has accepted the registration; only run uses this field
}

// register starts a registration with the agent of client, which is the client for cfg.
func register(
	cfg config.Consul, client *consul.Client, admin, version string, log hclog.Logger, ready func() bool,
) *registration {
	r := newRegistration(cfg, client, admin, version, log, ready)
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go r.run(ctx)
	return r
}

// newRegistration returns a registration that does not run yet.
func newRegistration(
	cfg config.Consul, client *consul.Client, admin, version string, log hclog.Logger, ready func() bool,
) *registration {
	return &registration{
		cfg: cfg, admin: admin, version: version, readyAt: readyURL(cfg.Address, admin),
		client: client, log: log.Named("register"), ready: ready, done: make(chan struct{}),
	}
}

// run maintains the registration until ctx ends.
func (r *registration) run(ctx context.Context) {
	defer close(r.done)
	var running sync.WaitGroup
	running.Go(func() { r.client.Run(ctx) })
	defer running.Wait()
	beat := time.NewTimer(0)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		}
		next := ownBeat
		err := r.beat(ctx)
		if err == nil && !r.ready() {
			next = time.Second // so that the change to ready is reported soon
		}
		r.note(ctx, err)
		beat.Reset(next)
	}
}

// note logs the first failed beat of a series, and the first success after it.
func (r *registration) note(ctx context.Context, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil && ctx.Err() == nil && !r.failing:
		r.log.Warn("not registered in consul, lictor keeps trying; the token needs service:write for \"lictor\"",
			"error", err)
	case err == nil && r.failing:
		r.log.Info("registered in consul again")
	}
	r.failing = err != nil
}

// beat updates the TTL check, or checks that the agent still has the registration. If the agent has lost it, beat
// registers Lictor again. The first beat always registers, because the agent's entry may come from an earlier Lictor.
func (r *registration) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ownPatience)
	defer cancel()
	if !r.known {
		return r.tell(ctx)
	}
	var err error
	if r.readyAt != "" {
		err = r.client.FindService(ctx, ownService)
	} else {
		err = r.updateCheck(ctx)
	}
	var answer *consul.StatusError
	lost := errors.As(err, &answer) &&
		(answer.Code == http.StatusNotFound || answer.Code == http.StatusInternalServerError)
	if lost {
		return r.tell(ctx)
	}
	return err
}

// health returns the status of Lictor's own check, and its text.
func (r *registration) health() (status, output string) {
	if !r.ready() {
		return api.HealthWarning, "not all services have an answer from Consul yet"
	}
	return api.HealthPassing, "all services have endpoints or are known to have none"
}

func (r *registration) updateCheck(ctx context.Context) error {
	status, output := r.health()
	return r.client.UpdateCheck(ctx, ownCheck, status, output)
}

// tell registers Lictor with the agent.
func (r *registration) tell(ctx context.Context) error {
	status, _ := r.health()
	check := &api.AgentServiceCheck{
		CheckID: ownCheck, Name: "Ready", Status: status, DeregisterCriticalServiceAfter: ownReapAfter.String(),
	}
	if r.readyAt != "" {
		check.HTTP, check.Interval, check.Timeout = r.readyAt, ownInterval.String(), ownPatience.String()
	} else {
		check.TTL = ownTTL.String()
	}
	err := r.client.Register(ctx, &api.AgentServiceRegistration{
		ID: ownService, Name: ownService,
		Meta:  map[string]string{"version": r.version, "pid": fmt.Sprint(os.Getpid()), "admin": r.admin},
		Check: check,
	})
	if err != nil {
		return err
	}
	// An earlier Lictor may have left the service in maintenance.
	if err := r.client.LeaveMaintenance(ctx, ownService); err != nil {
		return err
	}
	r.known = true
	r.log.Info("registered in consul", "service", ownService)
	if r.readyAt != "" {
		return nil
	}
	return r.updateCheck(ctx)
}

// readyURL returns the URL at which the agent can request /readyz. The argument agents are the addresses of Consul, and
// admin is the admin API's address. The URL is empty if the API listens at a Unix socket, or at a loopback address
// while an agent is on another host. It is also empty with several agents: when Lictor moves from one to another, the
// former one must find out that the check is not meant for it any more.
func readyURL(agents config.Addresses, admin string) string {
	all := agents.All()
	if len(all) > 1 {
		return ""
	}
	addr, err := netip.ParseAddrPort(admin)
	if err != nil {
		return ""
	}
	if addr.Addr().IsUnspecified() {
		addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
	}
	if addr.Addr().IsLoopback() && !consul.Local(all[0]) {
		return ""
	}
	return "http://" + addr.String() + "/readyz"
}

// stopping puts Lictor's service into maintenance, because Lictor accepts no more clients. A nil registration does
// nothing.
func (r *registration) stopping() {
	if r == nil {
		return
	}
	r.leave()
	ctx, cancel := context.WithTimeout(context.Background(), ownPatience)
	defer cancel()
	if err := r.client.EnterMaintenance(ctx, ownService, "lictor is shutting down"); err != nil {
		r.log.Debug("not put into maintenance", "error", err)
	}
}

// leave stops the updates. The service stays registered for the successor process. A nil registration does nothing.
func (r *registration) leave() {
	if r == nil {
		return
	}
	r.cancel()
	<-r.done
}

// end deregisters Lictor. A nil registration does nothing.
func (r *registration) end() {
	if r == nil {
		return
	}
	r.leave()
	ctx, cancel := context.WithTimeout(context.Background(), ownPatience)
	defer cancel()
	if err := r.client.Deregister(ctx, ownService); err != nil {
		r.log.Warn("not deregistered, consul will remove the service later", "after", ownReapAfter, "error", err)
	}
	r.client.CloseIdle()
}
