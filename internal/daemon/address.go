package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/endpoints"
)

// This file keeps the whole process at one of the addresses of Consul.

// settleTimeout limits how long a reload looks for the first address of Consul that answers.
const settleTimeout = 3 * time.Second

// A consulClient is the client of Consul for a configuration.
type consulClient struct {
	cfg config.Consul
	*consul.Client
}

// clientOf returns the client of Consul for cfg: the one in force, or a new one if cfg differs. All parts of the
// process get the same client, and so are at the same address.
func (d *Daemon) clientOf(cfg config.Consul) (*consul.Client, error) {
	for _, known := range []*consulClient{d.client.Load(), d.nextClient.Load()} {
		if known != nil && known.cfg == cfg {
			return known.Client, nil
		}
	}
	o := clientOptions(cfg)
	o.Logger = d.log
	client, err := consul.New(o)
	if err != nil {
		return nil, err
	}
	client.OnMove(func(m consul.Move) {
		d.events.Add(endpoints.Event{Kind: endpoints.KindMoved,
			Text: fmt.Sprintf("Lictor uses Consul at %s instead of %s: %s", m.To, m.From, m.Why)})
	})
	d.nextClient.Store(&consulClient{cfg, client})
	return client, nil
}

// use puts the client of cfg in force.
func (d *Daemon) use(cfg config.Consul, client *consul.Client) {
	if now := d.client.Load(); now == nil || now.Client != client {
		d.client.Store(&consulClient{cfg, client})
	}
	d.nextClient.Store(nil)
}

// goBack moves to the first address of Consul that answers, because an operator has asked for a reload. goBack returns
// a text for the summary of the reload, which is empty if the address stays.
func (d *Daemon) goBack(ctx context.Context, client *consulClient) string {
	if client == nil || client != d.client.Load() { // a new client chooses by itself
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if !client.Settle(ctx, "reload") {
		return ""
	}
	return "; consul at " + client.Standing().Address
}

// consulShown returns at which address of Consul the process is, or nil if it does not use Consul.
func (d *Daemon) consulShown() *admin.Consul {
	client := d.client.Load()
	if client == nil {
		return nil
	}
	shown := admin.Consul(client.Standing())
	return &shown
}
