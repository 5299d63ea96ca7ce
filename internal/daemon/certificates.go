package daemon

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/certificates"
	"github.com/lictor-proxy/lictor/internal/endpoints"
)

// certificates returns the certificates of the services as the API shows them.
func (d *Daemon) certificates() map[string][]admin.Certificate {
	all := map[string][]admin.Certificate{}
	for service, states := range d.keys.store.States(time.Now()) {
		for _, s := range states {
			one := admin.Certificate{File: s.File, Authorities: s.Authorities, Expires: s.Expires.UTC(),
				State: string(s.Health)}
			if s.Err != nil {
				one.Error = s.Err.Error()
			}
			all[service] = append(all[service], one)
		}
		slices.SortFunc(all[service], func(a, b admin.Certificate) int { return strings.Compare(a.File, b.File) })
	}
	return all
}

// certificateNews adds an event for what has happened to certificate files.
func (d *Daemon) certificateNews(r certificates.Report) {
	e := endpoints.Event{Kind: endpoints.KindCertificate, Services: r.Services, Text: certificateText(r)}
	if len(r.Services) == 1 {
		e.Service, e.Services = r.Services[0], nil
	}
	d.events.Add(e)
}

// certificateText describes what has happened to certificate files.
func certificateText(r certificates.Report) string {
	files, at := strings.Join(r.Files, " and "), r.Expires.UTC().Format(time.RFC3339)
	switch r.What {
	case certificates.Changed:
		return fmt.Sprintf("%s: new connections use the new content, which expires at %s", files, at)
	case certificates.Unusable:
		return fmt.Sprintf("%s: the new content cannot be used, the former content stays in use: %v", files, r.Err)
	case certificates.Usable:
		return files + ": can be used again"
	case certificates.Expiring:
		return fmt.Sprintf("%s: expires soon, at %s", files, at)
	}
	return fmt.Sprintf("%s: has expired at %s", files, at)
}
