package config

import (
	"slices"

	"github.com/hashicorp/hcl/v2"
)

// The configuration language. These are functions rather than variables, so that nothing can change them.

func rootSchema() *hcl.BodySchema {
	s := arguments("log_level", "log_json", "shutdown_grace", "upgrade_grace", "engine", "state_dir", "region", "zone",
		"kernel_path", "kernel_path_cgroup")
	s.Blocks = []hcl.BlockHeaderSchema{{Type: "consul"}, {Type: "admin"}, {Type: "metrics"}, {Type: "access_log"},
		{Type: "mesh"}, {Type: "service", LabelNames: []string{"name"}}, {Type: "expose", LabelNames: []string{"name"}}}
	return s
}

func meshServerSchema() *hcl.BodySchema {
	return arguments("bind", "ports")
}

func exposeSchema() *hcl.BodySchema {
	return arguments("local", "intentions", "unknown_intentions", "allow_identities", "allow", "deny",
		"connect_timeout", "idle_timeout", "half_close_timeout", "max_age", "max_age_grace", "handshake_timeout",
		"max_connections", "max_connections_per_client", "max_connections_per_identity", "max_queue", "queue_timeout",
		"send_proxy")
}

func accessLogSchema() *hcl.BodySchema {
	return arguments("path", "format", "sample")
}

func adminSchema() *hcl.BodySchema {
	return arguments("listen", "token_file", "hosts")
}

func metricsSchema() *hcl.BodySchema {
	return arguments("endpoints")
}

func consulSchema() *hcl.BodySchema {
	s := arguments("address", "token", "token_file", "datacenter", "namespace", "partition", "max_watches",
		"register")
	s.Blocks = []hcl.BlockHeaderSchema{{Type: "tls"}}
	return s
}

func tlsSchema() *hcl.BodySchema {
	return arguments("ca_file", "ca_path", "cert_file", "key_file", "server_name", "insecure_skip_verify")
}

func serviceSchema() *hcl.BodySchema {
	s := arguments("listen", "sni", "protocol", "allow", "deny", "balance", "sticky",
		"connect_timeout", "idle_timeout", "half_close_timeout", "on_leave", "max_age", "max_age_grace",
		"max_sessions", "responses", "requests",
		"max_fails", "min_available", "slow_start", "max_connections", "max_connections_per_endpoint",
		"max_connections_per_client", "max_queue", "queue_timeout", "empty_wait",
		"failover_on", "failover_below", "failback_hold", "send_proxy", "send_proxy_udp",
		"transparent", "prefer", "prefer_strict", "kernel_path")
	s.Blocks = []hcl.BlockHeaderSchema{{Type: "consul"}, {Type: "static"}, {Type: "check"}, {Type: "on_leave"},
		{Type: "accept_proxy"}, {Type: "tls"}, {Type: "endpoint_tls"}, {Type: "mesh"}}
	return s
}

func meshSchema() *hcl.BodySchema {
	return arguments("as")
}

func acceptTLSSchema() *hcl.BodySchema {
	s := arguments("cert_file", "key_file", "client_ca_file", "min_version", "alpn", "timeout")
	s.Blocks = []hcl.BlockHeaderSchema{{Type: "certificate"}}
	return s
}

func certificateSchema() *hcl.BodySchema {
	return arguments("cert_file", "key_file")
}

func endpointTLSSchema() *hcl.BodySchema {
	s := tlsSchema()
	more := arguments("server_name_meta", "server_name_tag", "min_version", "alpn")
	s.Attributes = append(s.Attributes, more.Attributes...)
	return s
}

func acceptProxySchema() *hcl.BodySchema {
	return arguments("from", "timeout")
}

func onLeaveSchema() *hcl.BodySchema {
	return arguments("deregistered", "critical", "unmatched")
}

func checkSchema() *hcl.BodySchema {
	s := arguments("interval", "timeout", "send", "expect", "http", "port", "max_silence")
	s.Blocks = []hcl.BlockHeaderSchema{{Type: "tls"}}
	return s
}

func querySchema() *hcl.BodySchema {
	s := arguments("service", "tags", "filter", "datacenter", "datacenters", "namespace", "partition", "peer",
		"prepared_query", "near", "port", "address", "statuses", "socket_paths", "max_drop", "drop_hold", "hold_max")
	s.Blocks = []hcl.BlockHeaderSchema{{Type: "hold_max"}}
	return s
}

func holdMaxSchema() *hcl.BodySchema {
	return arguments("critical", "forgotten")
}

func staticSchema() *hcl.BodySchema {
	return arguments("endpoints")
}

func arguments(names ...string) *hcl.BodySchema {
	s := &hcl.BodySchema{}
	for _, name := range names {
		s.Attributes = append(s.Attributes, hcl.AttributeSchema{Name: name})
	}
	return s
}

// A shape says what a block may contain, and which values may be shown. A nil shape contains nothing.
type shape struct {
	schema   *hcl.BodySchema
	secrets  []string          // arguments that hold secrets
	blocks   map[string]*shape // by type; other inner blocks are unknown
	labelled bool              // the block has a name
}

// argument reports whether the block has an argument of that name, and whether its value may be shown.
func (s *shape) argument(name string) (known, shown bool) {
	if s == nil {
		return false, false
	}
	known = slices.ContainsFunc(s.schema.Attributes, func(a hcl.AttributeSchema) bool { return a.Name == name })
	return known, known && !slices.Contains(s.secrets, name)
}

// inner returns the shape of the inner blocks of a type, or nil if the schema does not know them.
func (s *shape) inner(blockType string) *shape {
	if s == nil {
		return nil
	}
	return s.blocks[blockType]
}

// language returns the shape of a whole configuration file.
func language() *shape {
	query := &shape{schema: querySchema(), blocks: map[string]*shape{"hold_max": {schema: holdMaxSchema()}}}
	service := &shape{schema: serviceSchema(), labelled: true, blocks: map[string]*shape{
		"consul": query,
		"static": {schema: staticSchema()},
		"check": {schema: checkSchema(), secrets: []string{"send"}, // such as the community of SNMP
			blocks: map[string]*shape{"tls": {schema: tlsSchema()}}},
		"on_leave":     {schema: onLeaveSchema()},
		"accept_proxy": {schema: acceptProxySchema()},
		"tls": {schema: acceptTLSSchema(),
			blocks: map[string]*shape{"certificate": {schema: certificateSchema()}}},
		"endpoint_tls": {schema: endpointTLSSchema()},
		"mesh":         {schema: meshSchema()},
	}}
	consul := &shape{schema: consulSchema(), secrets: []string{"token"},
		blocks: map[string]*shape{"tls": {schema: tlsSchema()}}}
	return &shape{schema: rootSchema(), blocks: map[string]*shape{
		"consul":     consul,
		"admin":      {schema: adminSchema()},
		"metrics":    {schema: metricsSchema()},
		"access_log": {schema: accessLogSchema()},
		"mesh":       {schema: meshServerSchema()},
		"service":    service,
		"expose":     {schema: exposeSchema(), labelled: true},
	}}
}
