package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// A foreign is a word that other proxies use for an argument, a block or a value of Lictor.
type foreign struct {
	word string // as plain returns it
	here string // Lictor's words for it, with spaces between; empty if there are none
	note string // a sentence that here cannot say, or ""
}

// foreignWords returns the words of HAProxy, nginx, Traefik, Envoy and gobetween that a user may write by habit. The
// tables of docs/migrating.md have the same words, and a test compares both.
func foreignWords() []foreign {
	const tries = "Lictor always tries up to three instances."
	const bytesOnly = "Lictor forwards bytes and does not read HTTP."
	return []foreign{
		{"bind", "listen", ""}, {"address", "listen", ""}, {"entrypoint", "listen", ""}, {"entrypoints", "listen", ""},
		{"frontend", "service", ""}, {"backend", "service static", ""}, {"upstream", "service static", ""},
		{"listener", "service", ""}, {"cluster", "service static", ""},
		{"server", "static consul", ""}, {"servers", "static consul", ""}, {"proxypass", "static consul", ""},
		{"loadassignment", "static consul", ""}, {"backup", "static consul", ""}, {"discovery", "consul", ""},
		{"consulservicename", "service", ""}, {"consulservicetag", "tags", ""}, {"consulhost", "address", ""},
		{"consulservicepassingonly", "statuses", ""}, {"constraints", "filter", ""},

		{"mode", "protocol", ""}, {"http", "tcp", bytesOnly}, {"https", "tcp", bytesOnly},
		{"loadbalancer", "balance", ""}, {"lbpolicy", "balance", ""}, {"stick", "sticky", ""},
		{"leastconn", "least_connections", ""}, {"leastrequest", "least_connections", ""},
		{"random", "random_two", ""}, {"p2c", "random_two", ""}, {"wrr", "round_robin", ""},
		{"staticrr", "round_robin", ""}, {"weight", "round_robin", "Weights from Consul always count."},
		{"source", "source_hash", ""}, {"hash", "source_hash", ""}, {"iphash", "source_hash", ""},
		{"iphash1", "source_hash", ""}, {"ringhash", "source_hash", ""}, {"maglev", "source_hash", ""},

		{"timeoutconnect", "connect_timeout", ""}, {"proxyconnecttimeout", "connect_timeout", ""},
		{"dialtimeout", "connect_timeout", ""}, {"backendconnectiontimeout", "connect_timeout", ""},
		{"timeoutclient", "idle_timeout", ""}, {"timeoutserver", "idle_timeout", ""},
		{"timeouttunnel", "idle_timeout", ""}, {"proxytimeout", "idle_timeout", ""},
		{"clientidletimeout", "idle_timeout", ""}, {"backendidletimeout", "idle_timeout", ""},
		{"timeoutclientfin", "half_close_timeout", ""}, {"timeoutserverfin", "half_close_timeout", ""},
		{"terminationdelay", "half_close_timeout", ""}, {"timeoutqueue", "queue_timeout", ""},
		{"maxdownstreamconnectionduration", "max_age", ""}, {"proxyresponses", "responses", ""},
		{"maxresponses", "responses", ""}, {"proxyrequests", "requests", ""}, {"maxrequests", "requests", ""},

		{"maxconn", "max_connections max_connections_per_endpoint", ""},
		{"maxconns", "max_connections_per_endpoint", ""}, {"limitconn", "max_connections_per_client", ""},
		{"inflightconn", "max_connections_per_client", ""}, {"circuitbreakers", "max_connections", ""},
		{"tcprequest", "allow deny", ""}, {"reject", "deny", ""}, {"rules", "allow deny", ""},
		{"rbac", "allow deny", ""},
		{"ipallowlist", "allow", ""}, {"ipwhitelist", "allow", ""}, {"sourcerange", "allow", ""},
		{"sendproxyv2", "send_proxy", "Write send_proxy = \"v2\"."}, {"proxyprotocol", "send_proxy accept_proxy", ""},
		{"usebackend", "sni", ""}, {"sslpreread", "sni", ""}, {"hostsni", "sni", ""},
		{"ssl", "tls endpoint_tls", ""}, {"crt", "cert_file", ""}, {"sslcertificate", "cert_file", ""},
		{"sslcertificatekey", "key_file", ""}, {"sslclientcertificate", "client_ca_file", ""},
		{"sslprotocols", "min_version", ""}, {"proxyssl", "endpoint_tls", ""},
		{"proxyssltrustedcertificate", "ca_file", ""}, {"proxysslname", "server_name", ""},
		{"serverstransport", "endpoint_tls", ""}, {"connectaware", "mesh", ""},
		{"usesrc", "transparent", ""}, {"proxybind", "transparent", ""},
		{"slowstartconfig", "slow_start", ""}, {"healthypanicthreshold", "min_available", ""},
		{"onmarkeddown", "on_leave", ""}, {"shutdownsessions", "cut", ""},

		{"inter", "interval", ""}, {"optionhttpchk", "http", ""}, {"fall", "max_silence", ""},
		{"healthcheck", "check", ""}, {"healthchecks", "check", ""}, {"errorlimit", "max_fails", ""},
		{"outlierdetection", "max_fails", ""},
		{"failtimeout", "max_fails", "The first ejection lasts 1s, and further ones last longer."},
		{"retries", "", tries}, {"optionredispatch", "", tries}, {"maxconnectattempts", "", tries},
	}
}

// plain returns a word in lower case with its letters and digits only, because other proxies write words differently:
// least_conn, leastconn, leastConn.
func plain(word string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(word))
}

// counterpart returns what Lictor has for the word of another proxy. It returns nil if the word is not known.
func counterpart(word string) *foreign {
	word = plain(word)
	for _, f := range foreignWords() {
		if f.word == word {
			return &f
		}
	}
	return nil
}

// elsewhere returns a sentence that begins with a space about an argument or a block that the block at path does not
// have: what Lictor calls it, or in which block it belongs. The second result has the names that the user probably
// means. elsewhere returns "" if it does not know the name.
func elsewhere(name string, path []string) (text string, meant []string) {
	at := stepsTo(path)
	schema := at[len(at)-1].shape.schema
	if f := counterpart(name); f != nil {
		if text, meant = inLictor(f, at); text != "" {
			return text, meant
		}
	}
	for _, longer := range names(schema) {
		if strings.HasPrefix(longer, name+"_") || longer+"s" == name || longer == name+"s" {
			return fmt.Sprintf(" Did you mean %q?", longer), []string{longer}
		}
	}
	if slices.Contains(names(schema), name) {
		if at[len(at)-1].shape.blocks[name] != nil {
			return fmt.Sprintf(" %q is a block. Write %s { ... } without an equals sign.", name, name), []string{name}
		}
		return fmt.Sprintf(" %q is an argument. Write it with an equals sign and a value.", name), []string{name}
	}
	if home := homeOf(name, at); home != "" {
		return fmt.Sprintf(" %q belongs %s.", name, home), []string{name}
	}
	return "", nil
}

// inLictor returns a sentence that begins with a space about what Lictor has for f, and the names of that. It returns
// "" if Lictor has nothing for f in the last block of at or in another block.
func inLictor(f *foreign, at []step) (text string, meant []string) {
	schema := at[len(at)-1].shape.schema
	for _, here := range strings.Fields(f.here) {
		if slices.Contains(names(schema), here) {
			text, meant = text+fmt.Sprintf(" or %q", here), append(meant, here)
		}
	}
	last := ""
	for _, here := range strings.Fields(f.here) {
		home := homeOf(here, at)
		if home == "" || len(meant) > 0 {
			continue
		}
		if home == last { // "a" or "b" in the block
			text = strings.TrimSuffix(text, " "+home)
		}
		text, last = text+fmt.Sprintf(" or %q %s", here, home), home
	}
	switch {
	case text != "":
		text = " In Lictor that is" + strings.TrimPrefix(text, " or") + "."
	case f.here != "" || !slices.Contains(names(schema), "balance"): // a note alone is about a service
		return "", nil
	}
	return strings.TrimRight(text+" "+f.note, " "), meant
}

// homeOf returns where an argument or a block belongs that the last block of path does not have, such as "in a consul
// block". It prefers a block inside that one, then blocks around it. homeOf returns "" if no such block has the name.
func homeOf(name string, path []step) string {
	for i := len(path) - 1; i >= 0; i-- {
		around := "" // the block that is meant, seen from the last block of path
		switch {
		case i == len(path)-1:
		case path[i].name == "":
			around = " outside of all other blocks"
		default:
			around = " of the " + path[i].name
		}
		if slices.Contains(names(path[i].shape.schema), name) {
			return strings.Replace("in the block"+around, "in the block outside of all other", "outside of all", 1)
		}
		if inner := below(path[i].shape, name); len(inner) > 0 {
			return "in " + strings.Join(inner, " or ") + around
		}
	}
	return ""
}

// A step is one block on the way to a block. The first step is the file, which has no name.
type step struct {
	name  string
	shape *shape
}

// stepsTo returns the file and the blocks of the types in path.
func stepsTo(path []string) []step {
	steps := []step{{"", language()}}
	for i, name := range path {
		steps = append(steps, step{name, steps[i].shape.inner(name)})
	}
	return steps
}

// below returns the nearest blocks inside s that have an argument or a block of that name, such as "a consul block". It
// returns nil if none has.
func below(s *shape, name string) (nearest []string) {
	for _, inner := range s.inners() {
		if slices.Contains(names(s.blocks[inner].schema), name) {
			nearest = append(nearest, article(inner)+" "+inner+" block")
		}
	}
	if nearest != nil {
		return nearest
	}
	for _, inner := range s.inners() {
		for _, block := range below(s.blocks[inner], name) {
			nearest = append(nearest, block+" in "+article(inner)+" "+inner+" block")
		}
	}
	return nearest
}

// inners returns the types of the blocks inside a shape, in the order of the schema.
func (s *shape) inners() (all []string) {
	for _, b := range s.schema.Blocks {
		if s.blocks[b.Type] != nil {
			all = append(all, b.Type)
		}
	}
	return all
}

// names returns the names of a schema's arguments and blocks.
func names(schema *hcl.BodySchema) (all []string) {
	for _, a := range schema.Attributes {
		all = append(all, a.Name)
	}
	for _, b := range schema.Blocks {
		all = append(all, b.Type)
	}
	return all
}
