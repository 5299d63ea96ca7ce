package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/regular"
)

// The service that a lictor registers itself as: one a host, so its ID need not say more.
const (
	ownService = "lictor"
	ownCheck   = "lictor:ready"
)

// The check asks /readyz of the admin API, if the agent can reach that; else it is a TTL one, which turns critical when nothing was heard for
// ownTTL.
const (
	ownTTL       = 15 * time.Second
	ownBeat      = ownTTL / 3
	ownInterval  = 5 * time.Second // of the check that asks
	ownReapAfter = 10 * time.Minute
	ownPatience  = 2 * time.Second // of a request
	maxOwnToken  = 64 << 10        // bytes of the token's file
)

// A registration is this lictor as a service in Consul. It comes back when the agent has lost it.
type registration struct {
	cfg     config.Consul
	admin   string // where the admin API is; empty: nowhere
	version string
	client  *api.Client
	log     hclog.Logger
	ready   func() bool
	cancel  context.CancelFunc
	done    chan struct{}

	mu      sync.Mutex
	failing bool // the last beat failed; guarded by mu

	known bool // the agent has been told; run's own
}

// register starts a registration.
func register(cfg config.Consul, admin, version string, log hclog.Logger, ready func() bool) (*registration, error) {
	transport := api.DefaultConfig().Transport
	var err error
	if strings.HasPrefix(cfg.Address, "https://") {
		transport.TLSClientConfig, err = consul.TLSOptions(cfg.TLS).Config()
	}
	var client *api.Client
	if err == nil {
		client, err = api.NewClient(&api.Config{
			Address:    cfg.Address,
			Datacenter: cfg.Datacenter,
			Token:      string(cfg.Token),
			HttpAuth:   basicAuth(string(cfg.HTTPAuth)),
			Transport:  transport,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("register in consul: %w", err)
	}
	r := &registration{cfg: cfg, admin: admin, version: version, client: client, log: log.Named("register"), ready: ready, done: make(chan struct{})}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go r.run(ctx)
	return r, nil
}

func basicAuth(auth string) *api.HttpBasicAuth {
	if auth == "" {
		return nil
	}
	user, password, _ := strings.Cut(auth, ":")
	return &api.HttpBasicAuth{Username: user, Password: password}
}

// run beats until ctx ends.
func (r *registration) run(ctx context.Context) {
	defer close(r.done)
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
			next = time.Second // to tell soon that it is
		}
		r.note(ctx, err)
		beat.Reset(next)
	}
}

// note logs what has changed.
func (r *registration) note(ctx context.Context, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil && ctx.Err() == nil && !r.failing:
		r.log.Warn("not registered, trying on; the token needs service:write for \"lictor\"", "error", err)
	case err == nil && r.failing:
		r.log.Info("registered again")
	}
	r.failing = err != nil
}

// beat says how this lictor does, if the agent does not ask by itself, and registers it if the agent does not know it. The first time it does
// anyhow: what the agent knows may be of a former lictor.
func (r *registration) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ownPatience)
	defer cancel()
	if !r.known {
		return r.tell(ctx)
	}
	var err error
	if readyURL(r.cfg.Address, r.admin) != "" {
		_, _, err = r.client.Agent().Service(ownService, r.options(ctx))
	} else {
		status, output := r.health()
		err = r.client.Agent().UpdateTTLOpts(ownCheck, output, status, r.options(ctx))
	}
	var answer api.StatusError
	if errors.As(err, &answer) && (answer.Code == http.StatusNotFound || answer.Code == http.StatusInternalServerError) {
		return r.tell(ctx)
	}
	return err
}

// health is how this lictor does.
func (r *registration) health() (status, output string) {
	if !r.ready() {
		return api.HealthWarning, "not all services have had an answer from Consul yet"
	}
	return api.HealthPassing, "all services have endpoints or are known to have none"
}

// tell registers this lictor.
func (r *registration) tell(ctx context.Context) error {
	status, output := r.health()
	check := &api.AgentServiceCheck{CheckID: ownCheck, Name: "Ready", Status: status, DeregisterCriticalServiceAfter: ownReapAfter.String()}
	asks := readyURL(r.cfg.Address, r.admin)
	if asks != "" {
		check.HTTP, check.Interval, check.Timeout = asks, ownInterval.String(), ownPatience.String()
	} else {
		check.TTL = ownTTL.String()
	}
	err := r.client.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
		ID: ownService, Name: ownService,
		Meta:  map[string]string{"version": r.version, "pid": fmt.Sprint(os.Getpid()), "admin": r.admin},
		Check: check,
	}, api.ServiceRegisterOpts{ReplaceExistingChecks: true, Token: r.token()}.WithContext(ctx))
	if err != nil {
		return err
	}
	// An earlier lictor may have ended in maintenance.
	if err := r.client.Agent().DisableServiceMaintenanceOpts(ownService, r.options(ctx)); err != nil {
		return err
	}
	r.known = true
	r.log.Info("registered", "service", ownService)
	if asks != "" {
		return nil
	}
	return r.client.Agent().UpdateTTLOpts(ownCheck, output, status, r.options(ctx))
}

// readyURL is where an agent at the given address can ask whether the lictor whose API is at admin is ready; empty: nowhere, for it is
// at a Unix socket, or at an address that means another host there.
func readyURL(agent, admin string) string {
	addr, err := netip.ParseAddrPort(admin)
	if err != nil {
		return ""
	}
	if addr.Addr().IsUnspecified() {
		addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
	}
	if addr.Addr().IsLoopback() && !consul.Local(agent) {
		return ""
	}
	return "http://" + addr.String() + "/readyz"
}

func (r *registration) options(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{Token: r.token()}).WithContext(ctx)
}

// token is the one of now: a file is read each time, so that it can be rotated.
func (r *registration) token() string {
	if r.cfg.TokenFile == "" {
		return string(r.cfg.Token)
	}
	text, err := regular.ReadFile(r.cfg.TokenFile, maxOwnToken)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// stopping tells Consul that this lictor takes no more clients. A nil registration does nothing.
func (r *registration) stopping() {
	if r == nil {
		return
	}
	r.cancel()
	<-r.done
	ctx, cancel := context.WithTimeout(context.Background(), ownPatience)
	defer cancel()
	if err := r.client.Agent().EnableServiceMaintenanceOpts(ownService, "lictor is shutting down", r.options(ctx)); err != nil {
		r.log.Debug("not put into maintenance", "error", err)
	}
}

// leave leaves what is registered to another process. A nil registration does nothing.
func (r *registration) leave() {
	if r != nil {
		r.cancel()
		<-r.done
	}
}

// end takes this lictor out of Consul. A nil registration does nothing.
func (r *registration) end() {
	if r == nil {
		return
	}
	r.cancel()
	<-r.done
	ctx, cancel := context.WithTimeout(context.Background(), ownPatience)
	defer cancel()
	if err := r.client.Agent().ServiceDeregisterOpts(ownService, r.options(ctx)); err != nil {
		r.log.Warn("not deregistered, consul will do it by itself", "after", ownReapAfter, "error", err)
	}
}
