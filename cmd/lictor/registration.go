package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
)

// The service that a lictor registers itself as: one a host, so its ID need not say more.
const (
	ownService = "lictor"
	ownCheck   = "lictor:ready"
)

// The check is a TTL one, so that it needs no port: it turns critical when nothing was heard for ownTTL.
const (
	ownTTL       = 15 * time.Second
	ownBeat      = ownTTL / 3
	ownReapAfter = 10 * time.Minute
	ownPatience  = 2 * time.Second // of a request
)

// A registration is this lictor as a service in Consul. It comes back when the agent has lost it.
type registration struct {
	cfg    config.Consul
	client *api.Client
	log    hclog.Logger
	ready  func() bool
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	failing bool // the last beat failed; guarded by mu
}

// register starts a registration.
func register(cfg config.Consul, log hclog.Logger, ready func() bool) (*registration, error) {
	client, err := api.NewClient(&api.Config{
		Address:    cfg.Address,
		Datacenter: cfg.Datacenter,
		Token:      string(cfg.Token),
		HttpAuth:   basicAuth(string(cfg.HTTPAuth)),
		TLSConfig: api.TLSConfig{
			Address: cfg.TLS.ServerName, CAFile: cfg.TLS.CAFile, CAPath: cfg.TLS.CAPath,
			CertFile: cfg.TLS.CertFile, KeyFile: cfg.TLS.KeyFile, InsecureSkipVerify: cfg.TLS.InsecureSkipVerify,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("register in consul: %w", err)
	}
	r := &registration{cfg: cfg, client: client, log: log.Named("register"), ready: ready, done: make(chan struct{})}
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

// beat says how this lictor does, and registers it if the agent does not know it.
func (r *registration) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ownPatience)
	defer cancel()
	status, output := api.HealthPassing, "all services have endpoints or are known to have none"
	if !r.ready() {
		status, output = api.HealthWarning, "not all services have had an answer from Consul yet"
	}
	err := r.client.Agent().UpdateTTLOpts(ownCheck, output, status, r.options(ctx))
	var answer api.StatusError
	if !errors.As(err, &answer) || answer.Code != http.StatusNotFound && answer.Code != http.StatusInternalServerError {
		return err
	}
	b := newBuild()
	err = r.client.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
		ID: ownService, Name: ownService,
		Meta: map[string]string{"version": b.Version, "pid": fmt.Sprint(os.Getpid())},
		Check: &api.AgentServiceCheck{
			CheckID: ownCheck, Name: "Ready", TTL: ownTTL.String(), Status: status, DeregisterCriticalServiceAfter: ownReapAfter.String(),
		},
	}, api.ServiceRegisterOpts{ReplaceExistingChecks: true, Token: r.token()}.WithContext(ctx))
	if err != nil {
		return err
	}
	// An earlier lictor may have ended in maintenance.
	if err := r.client.Agent().DisableServiceMaintenanceOpts(ownService, r.options(ctx)); err != nil {
		return err
	}
	r.log.Info("registered", "service", ownService)
	return r.client.Agent().UpdateTTLOpts(ownCheck, output, status, r.options(ctx))
}

func (r *registration) options(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{Token: r.token()}).WithContext(ctx)
}

// token is the one of now: a file is read each time, so that it can be rotated.
func (r *registration) token() string {
	if r.cfg.TokenFile == "" {
		return string(r.cfg.Token)
	}
	text, err := os.ReadFile(r.cfg.TokenFile)
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
