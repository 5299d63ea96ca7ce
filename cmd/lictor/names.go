package main

import (
	"context"
	"flag"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// completionTime limits how long a completion waits for names. The shell does nothing else meanwhile.
const completionTime = time.Second

// packagedConfig is where packages of lictor have the configuration.
const packagedConfig = "/etc/lictor"

// names returns a predictor of names. flags must be those of the command that a belongs to.
func (a *asker) names(flags func() *flag.FlagSet, list namer) predictor {
	return func(line typed) []string {
		words := line.words
		rest, err := parse(flags(), words)
		if err != nil && len(words) > 0 { // the last word may be the flag whose value is completed
			rest, err = parse(flags(), words[:len(words)-1])
		}
		if err != nil {
			return nil
		}
		return within(completionTime, func(ctx context.Context) []string {
			return list(a.services(ctx, packagedConfig), rest)
		})
	}
}

// within returns the names that find returns. It returns nil if find takes longer than limit, for example because of a
// hung disk. Names with spaces are left out, because a shell would split them.
func within(limit time.Duration, find func(ctx context.Context) []string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	found := make(chan []string, 1)
	go func() { found <- find(ctx) }()
	select {
	case names := <-found:
		return slices.DeleteFunc(names, func(name string) bool {
			return name == "" || strings.ContainsFunc(name, unicode.IsSpace) || visible.Text(name) != name
		})
	case <-ctx.Done():
		return nil
	}
}

// services returns the services of the running lictor. If none answers, it returns those of the configuration at path,
// with their static endpoints.
func (a *asker) services(ctx context.Context, path string) (services []admin.Service) {
	if client, _, err := a.connect(ctx); err == nil {
		defer client.Close()
		var all admin.ServicesAnswer
		if client.Get(ctx, "/v1/services", &all) == nil {
			return all.Services
		}
	}
	cfg, _ := config.Load([]string{path}, config.Options{})
	if cfg == nil {
		return nil
	}
	for _, s := range cfg.Services {
		one := admin.Service{Name: s.Name}
		if s.Static != nil {
			for _, e := range s.Static.Endpoints {
				id, _ := e.MarshalText()
				one.Endpoints = append(one.Endpoints, admin.Endpoint{ID: string(id)})
			}
		}
		services = append(services, one)
	}
	return services
}

// A namer lists names that may be the next argument. rest has the arguments before it.
type namer func(services []admin.Service, rest []string) []string

// serviceNames is a namer for a single argument SERVICE.
func serviceNames(services []admin.Service, rest []string) (names []string) {
	for i := 0; i < len(services) && len(rest) == 0; i++ {
		names = append(names, services[i].Name)
	}
	return names
}

// endpointNames is a namer of the endpoints of the service that rest begins with, or of all services.
func endpointNames(services []admin.Service, rest []string) (names []string) {
	for i := range services {
		if len(rest) > 0 && services[i].Name != rest[0] {
			continue
		}
		for j := range services[i].Endpoints {
			names = append(names, services[i].Endpoints[j].ID)
		}
	}
	return names
}
