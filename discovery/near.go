package discovery

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"
)

// A Prefer says which instances are near this host. The zero value means none. Prefer values may be compared.
type Prefer struct {
	// By is what near instances share with this host: "zone", "region", "node", or "meta:" with a key of meta. The zone
	// and the region are those of the Locality of the instance, or else of its node. The value of a key is that of the
	// instance, or else of its node. An empty By means that no instance is near.
	By string

	// Region and Zone are where this host is. If both are empty, the Locality of the agent's node counts. With a Zone
	// and no Region, regions do not matter.
	Region, Zone string
}

// The values of Prefer.By, except for keys of meta.
const (
	PreferZone   = "zone"
	PreferRegion = "region"
	PreferNode   = "node"
)

// metaPrefix is how Prefer.By begins for a key of meta.
const metaPrefix = "meta:"

// metaKey returns the key of meta that p looks at; empty: none.
func (p Prefer) metaKey() string {
	key, is := strings.CutPrefix(p.By, metaPrefix)
	if !is {
		return ""
	}
	return key
}

// needsAgent reports whether p depends on what the agent says of its node.
func (p Prefer) needsAgent() bool {
	return p.By != "" && !p.isSet()
}

// isSet reports whether p has the own zone or region that By looks at.
func (p Prefer) isSet() bool {
	return p.By == PreferZone && p.Zone != "" || p.By == PreferRegion && p.Region != ""
}

// A locality is Consul's word for where a node or a service is.
type locality struct{ Region, Zone string }

// own returns the Zone of near endpoints, as place does, or why it is not known. here is the agent's node.
func (p Prefer) own(here *ownNode) (zone, problem string) {
	if p.By == "" {
		return "", ""
	}
	if p.isSet() {
		return p.text(locality{p.Region, p.Zone}), ""
	}
	if here.err != nil {
		return "", "the agent does not say where its node is: " + here.err.Error()
	}
	switch p.By {
	case PreferNode:
		return here.name, ""
	case PreferZone:
		if here.locality.Zone == "" {
			return "", "the agent's node has no zone in its locality, and the configuration has no zone"
		}
		return p.text(here.locality), ""
	case PreferRegion:
		if here.locality.Region == "" {
			return "", "the agent's node has no region in its locality, and the configuration has no region"
		}
		return p.text(here.locality), ""
	}
	if zone = here.meta[p.metaKey()]; zone == "" {
		return "", "the meta of the agent's node has no \"" + cut(p.metaKey(), maxTag) + "\""
	}
	return cut(zone, maxTag), ""
}

// text returns the zone or the region of l as text, which is empty if l has none.
func (p Prefer) text(l locality) string {
	region, zone := cut(l.Region, maxTag), cut(l.Zone, maxTag)
	switch {
	case p.By == PreferRegion:
		return region
	case zone == "" || region == "" || p.Zone != "" && p.Region == "": // regions do not matter
		return zone
	}
	return region + "/" + zone
}

// OwnZone returns the Zone that near endpoints have now, as q.Prefer says. The problem says why it is not known.
func (c *Consul) OwnZone(ctx context.Context, q Query) (zone, problem string) {
	var here ownNode
	if q.Prefer.needsAgent() {
		here = c.here.recent(ctx, c.client)
	}
	return q.Prefer.own(&here)
}

// place returns the Zone of the endpoint of e, and whether it is near. here is the agent's node.
func (p Prefer) place(e *entry, here *ownNode) (zone string, near bool) {
	switch p.By {
	case "":
		return "", false
	case PreferNode:
		if near = here.is(e.Node); near {
			return here.name, true
		}
		zone = cut(e.Node.Node, maxTag)
		if other := cmp.Or(e.Node.PeerName, e.Node.Datacenter); other != here.datacenter {
			zone = cut(other, maxTag) + "/" + zone
		}
		return zone, false
	case PreferZone, PreferRegion:
		zone = p.text(e.locality())
	default:
		zone = e.Service.NearMeta
	}
	own, _ := p.own(here)
	return zone, zone != "" && zone == own
}

// locality returns where e is: what its service says, or else its node.
func (e *entry) locality() locality {
	switch {
	case e.Service.Locality != nil && *e.Service.Locality != locality{}:
		return *e.Service.Locality
	case e.Node.Locality != nil:
		return *e.Node.Locality
	}
	return locality{}
}

// metaOf returns the value of a key in the meta of e's service, or else of its node, shortened.
func metaOf(e *entry, key string) string {
	var meta map[string]string
	_ = json.Unmarshal(e.Service.Meta, &meta) // what is no text is missing
	if value := meta[key]; value != "" || e.Node == nil {
		return cut(value, maxTag)
	}
	meta = nil
	_ = json.Unmarshal(e.Node.Meta, &meta)
	return cut(meta[key], maxTag)
}
