package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/internal/regular"
)

const maxTokenFile = 64 << 10 // bytes

const maxMaxWatches = 60000 // at most so many connections can lead from one address to one port

// A setting is the value of an argument, or of an environment variable if the argument is absent.
type setting struct {
	value string
	from  string     // name of the argument or variable, for messages
	at    *hcl.Range // nil: the value is not from a file
}

// set reports whether the setting has a value.
func (s setting) set() bool { return s.value != "" }

// orVariable returns the name of the environment variable that could set s, in parentheses, or "" if there is none. s
// has no value yet.
func (s setting) orVariable() string {
	if s.from == "" {
		return ""
	}
	return " (" + s.from + ")"
}

// settings reads arguments that have an environment variable as a substitute.
type settings struct {
	*loader

	// silent suppresses problems with environment variables. They do not matter when every service is static.
	silent bool
}

// consulReader reads the top-level consul block and Consul's environment variables.
type consulReader struct {
	settings
	block *block // empty if there is no consul block
	tls   *block // nil if there is no tls block
}

// consul fills cfg.Consul. It must run after services, to know whether a service needs Consul.
func (l *loader) consul(root *block) {
	r := &consulReader{settings: settings{loader: l, silent: true}, block: root.single("consul", consulSchema())}
	for _, s := range l.cfg.Services {
		r.silent = r.silent && s.Consul == nil
	}
	if r.block == nil {
		r.block = &block{l: l}
	}
	r.tls = r.block.single("tls", tlsSchema())
	c := &l.cfg.Consul
	c.Address = r.addresses()
	r.credentials(c)
	c.Datacenter, _ = r.block.shortText("datacenter", maxConsulName)
	c.MaxWatches = r.block.integer("max_watches", DefaultMaxWatches, 1, maxMaxWatches)
	c.Register = r.block.boolean("register", false)
	c.Namespace, c.Partition = r.enterprise("namespace"), r.enterprise("partition")
	r.warnOfRegistration(c)
	r.readTLS(r.tls, &c.TLS, consulTLSVariables())
	if first := c.Address.All()[0]; r.tls != nil && first != "" && !strings.HasPrefix(first, "https://") {
		l.problem(r.tls.head.Ptr(), "TLS settings without TLS",
			"%s, so the tls block would have no effect. Write address = %q.",
			r.addressOrigin(), "https://"+httpsHost(first))
	}
}

// setting returns the argument name of b, or else the environment variable env. b may be nil. An empty env means that
// no variable applies.
func (r *settings) setting(b *block, name, env string) setting {
	if b != nil && b.attrs[name] != nil && !isNull(b.attrs[name].Expr) {
		v, _ := b.text(name)
		return setting{value: v, from: name, at: b.rangeOf(name)}
	}
	if env == "" {
		return setting{}
	}
	return setting{value: r.getenv(env), from: env}
}

// bad reports a problem with a setting.
func (r *settings) bad(s setting, summary, detail string, args ...any) {
	r.about(hcl.DiagError, s, summary, detail, args...)
}

// doubt warns of a setting.
func (r *settings) doubt(s setting, summary, detail string, args ...any) {
	r.about(hcl.DiagWarning, s, summary, detail, args...)
}

func (r *settings) about(severity hcl.DiagnosticSeverity, s setting, summary, detail string, args ...any) {
	if s.at == nil && r.silent {
		return
	}
	what := s.from + ": "
	if s.at == nil {
		what = "Environment variable " + what
	}
	r.report(severity, s.at, summary, fmt.Sprintf("%s%s.", what, fmt.Sprintf(detail, args...)))
}

// envBool returns the value of an environment variable that holds true or false. It returns def if the variable is not
// set or was reported.
func (r *settings) envBool(name string, def bool) bool {
	if name == "" || r.getenv(name) == "" {
		return def
	}
	text := r.getenv(name)
	v, err := strconv.ParseBool(text)
	if err != nil {
		r.bad(setting{from: name}, "Bad value", "%q is neither true nor false", text)
		return def
	}
	return v
}

// addressOrigin says where the address of Consul comes from, as the beginning of a sentence.
func (r *consulReader) addressOrigin() string {
	if r.block.isList("address") {
		return "The addresses of Consul (address) do not begin with https://"
	}
	if s := r.setting(r.block, "address", "CONSUL_HTTP_ADDR"); s.set() {
		return "The address of Consul (" + s.from + ") does not begin with https://"
	}
	return "The address of Consul is the default, http://" + DefaultConsulAddress
}

// httpsHost suggests what to write after https://, given an address without https.
func httpsHost(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok && !strings.HasPrefix(rest, "/") {
		return rest
	}
	return "127.0.0.1:8501"
}

// enterprise reads the namespace or the partition.
func (r *consulReader) enterprise(name string) string {
	s := r.setting(r.block, name, "CONSUL_"+strings.ToUpper(name))
	if s.set() && !isEnterpriseName(s.value) {
		r.bad(s, "Bad name", "%s", enterpriseHint)
	}
	return s.value
}

// isEnterpriseName reports whether text can be the name of a namespace or of a partition.
func isEnterpriseName(text string) bool {
	allowed := func(c rune) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-'
	}
	return len(text) <= maxEnterpriseName && !strings.ContainsFunc(text, func(c rune) bool { return !allowed(c) }) &&
		!strings.HasPrefix(text, "-") && !strings.HasSuffix(text, "-")
}

const maxEnterpriseName = 64 // bytes of a namespace's or a partition's name

const enterpriseHint = "write one name of at most 64 letters, digits and dashes. Lictor does not look in all of them"

// credentials reads the token. An argument has precedence over the environment variables. Of the two variables the one
// that names a file wins, as in Consul's own tools.
func (r *consulReader) credentials(c *Consul) {
	c.HTTPAuth = Secret(r.getenv("CONSUL_HTTP_AUTH"))
	token := r.setting(r.block, "token", "CONSUL_HTTP_TOKEN")
	file := r.setting(r.block, "token_file", "CONSUL_HTTP_TOKEN_FILE")
	switch {
	case token.at != nil && file.at != nil:
		r.problem(token.at, "Two tokens", "The consul block has token and token_file. Keep token_file.")
	case token.at != nil:
		file = setting{}
	case file.set():
		token = setting{}
	}
	if file.set() {
		text, err := regular.ReadFile(file.value, maxTokenFile)
		switch {
		case err != nil:
			r.bad(file, "Unreadable file", "%v", err)
		case strings.TrimSpace(string(text)) == "":
			r.bad(file, "Empty token", "the file %s is empty. Put the token into it", file.value)
		case !isToken(strings.TrimSpace(string(text))):
			r.bad(file, "Bad token", "the file %s does not hold just a token: it has spaces, several lines, or "+
				"characters that cannot be sent", file.value)
		}
	}
	if token.set() && !isToken(token.value) {
		r.bad(token, "Bad token", "a token is one word of visible ASCII characters")
	}
	c.Token, c.TokenFile = Secret(token.value), file.value
}

// isToken reports whether text can be sent as a token in an HTTP header: it must be visible ASCII characters.
func isToken(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}
