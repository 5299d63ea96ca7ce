package config

import "strings"

// preferMeta is how prefer begins for a key of meta.
const preferMeta = "meta:"

// maxZone limits the names of zones and regions, in bytes. Discovery keeps no longer names.
const maxZone = 128

// prefer reads which instances the service prefers. It must run after endpoints.
func (b *block) prefer(s *Service) {
	s.Prefer, _ = b.text("prefer")
	s.PreferStrict = b.boolean("prefer_strict", false)
	key, isMeta := strings.CutPrefix(s.Prefer, preferMeta)
	switch {
	case s.Prefer == "":
		if attr := b.attrs["prefer_strict"]; attr != nil && b.attrs["prefer"] == nil {
			b.l.problem(attr.NameRange.Ptr(), "Argument without prefer",
				"prefer_strict says how strictly prefer counts. Remove it, or write prefer = \"zone\".")
		}
	case isMeta && (key == "" || !isMetaKey(key)):
		b.l.problem(b.rangeOf("prefer"), "Bad key", "prefer: in Consul, a key of meta has at most %d letters, digits, "+
			"hyphens and underscores. Write such a key, like \"meta:rack\".", maxMetaKey)
	case !isMeta && s.Prefer != "zone" && s.Prefer != "region" && s.Prefer != "node":
		b.l.problem(b.rangeOf("prefer"), "Bad preference", "prefer: %q is not something that instances share with "+
			"this host. Write \"zone\", \"region\", \"node\", or \"meta:\" and a key of meta, like \"meta:rack\".",
			s.Prefer)
	case s.Consul == nil:
		b.l.problem(b.attrs["prefer"].NameRange.Ptr(), "Static endpoints have no zones", "prefer: only instances in "+
			"Consul have zones, nodes and meta, and this service has only static endpoints. Remove prefer, or add a "+
			"consul block.")
	}
}

// place reads the region and the zone of this host.
func (l *loader) place(root *block) {
	name := func(argument string) string {
		text, _ := root.shortText(argument, maxZone)
		if strings.Contains(text, "/") {
			l.problem(root.rangeOf(argument), "Bad name of a place", "%s: %q has a slash. Write the region and the "+
				"zone as two arguments, like region = \"eu\" and zone = \"eu-a\".", argument, text)
		}
		return text
	}
	l.cfg.Region, l.cfg.Zone = name("region"), name("zone")
}
