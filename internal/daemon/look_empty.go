package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
)

// whyEmpty says why Consul has no instance for q, and what to check. whyEmpty asks Consul what there is without the
// tags and the filter, and which services there are. If Consul does not answer that, whyEmpty says what it knows.
func whyEmpty(ctx context.Context, cfg *config.Config, q config.ConsulQuery, consul looker) string {
	if q.PreparedQuery != "" {
		return fmt.Sprintf("Consul has no instance for its query (%s). Check the prepared query.", whatOf(q))
	}
	if len(q.Tags) > 0 || q.Filter != "" {
		all := queryOf(q)
		all.Tags, all.Filter = nil, ""
		if known, err := consul.Look(ctx, all); err == nil && len(known) > 0 {
			return fmt.Sprintf("%s (%s).", mismatch(q, known), whatOf(q))
		}
	}
	if q.Peer == "" {
		if c, err := ReadCatalog(ctx, cfg, q.Datacenter); err == nil {
			if _, known := c.Tags[q.Service]; !known {
				return unknown(q, c)
			}
		}
	}
	return fmt.Sprintf("Consul has no instance for its query (%s). Check the name.", whatOf(q))
}

// mismatch says why the tags and the filter of q match none of the known instances.
func mismatch(q config.ConsulQuery, known []discovery.Instance) string {
	has := func(one discovery.Instance, tag string) bool { // Consul ignores the case of tags
		return slices.ContainsFunc(one.Tags, func(t string) bool { return strings.EqualFold(t, tag) })
	}
	hasAll := func(one discovery.Instance) bool {
		return !slices.ContainsFunc(q.Tags, func(tag string) bool { return !has(one, tag) })
	}
	of := config.Plural(len(known), "instance")
	for _, tag := range q.Tags {
		if !slices.ContainsFunc(known, func(one discovery.Instance) bool { return has(one, tag) }) {
			return fmt.Sprintf("Consul has %s, but none has the tag %q", of, tag)
		}
	}
	switch {
	case !slices.ContainsFunc(known, hasAll):
		return fmt.Sprintf("Consul has %s, but none has all of the tags %q", of, q.Tags)
	case len(q.Tags) > 0:
		return fmt.Sprintf("Consul has %s, but none with the tags %q matches the filter %q", of, q.Tags, q.Filter)
	}
	return fmt.Sprintf("Consul has %s, but none matches the filter %q", of, q.Filter)
}

// unknown says that the catalog does not have the service of q.
func unknown(q config.ConsulQuery, c *Catalog) string {
	text := fmt.Sprintf("Consul knows no service of this name (%s).", whatOf(q))
	if near := config.Nearest(q.Service, slices.Sorted(maps.Keys(c.Tags))); near != "" {
		text += fmt.Sprintf(" Did you mean %q?", near)
	}
	if c.Filtered {
		text += " The token may not see all services: perhaps it lacks service:read."
	}
	return text
}

// problemsOf returns what Look would report about the instances of a service now. problemsOf returns nothing for a
// service that is not in Consul, and at the latest when ctx ends.
func (d *Daemon) problemsOf(ctx context.Context, service string) (texts []string) {
	cfg, consul := d.cfg.Load(), d.consul.Load()
	i := slices.IndexFunc(cfg.Services, func(s config.Service) bool { return s.Name == service })
	if i < 0 || consul == nil {
		return nil
	}
	_, problems := lookAt(ctx, cfg, cfg.Services[i], consul)
	for _, p := range problems {
		detail := strings.TrimPrefix(p.Detail, fmt.Sprintf("Service %q: ", service))
		texts = append(texts, p.Summary+": "+detail)
	}
	return texts
}
