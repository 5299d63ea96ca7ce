package daemon

import "github.com/lictor-proxy/lictor/lb"

// healthChanged tells of an endpoint that is ejected, or no longer. It is called while the endpoint is used, so it
// waits for nothing.
func (d *Daemon) healthChanged(c lb.HealthChange) {
	d.events.Health(c)
	if consul := d.consul.Load(); consul != nil {
		consul.HealthChanged(c.Service)
	}
}
