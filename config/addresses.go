package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/lictor-proxy/lictor/internal/hostport"
)

// Addresses are the addresses of Consul, in order of preference: "host:port", "http://host:port", "https://host:port"
// or "unix:///path". There is a line break between two addresses, so that Addresses can be compared with ==. There is
// at least one address in a valid configuration.
type Addresses string

// All returns the addresses.
func (a Addresses) All() []string { return strings.Split(string(a), "\n") }

// text returns the addresses as they would be written in a configuration: one in quotes, or a list.
func (a Addresses) text() string {
	all := a.All()
	if len(all) == 1 {
		return quoteOrNothing(all[0])
	}
	for i, one := range all {
		all[i] = fmt.Sprintf("%q", one)
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func quoteOrNothing(text string) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf("%q", text)
}

// plain returns the addresses for JSON: one as text, several as a list.
func (a Addresses) plain() any {
	if all := a.All(); len(all) > 1 {
		return all
	}
	return string(a)
}

// UnmarshalJSON reads what plain has returned.
func (a *Addresses) UnmarshalJSON(text []byte) error {
	var all []string
	if err := json.Unmarshal(text, &all); err == nil {
		*a = Addresses(strings.Join(all, "\n"))
		return nil
	}
	return json.Unmarshal(text, (*string)(a))
}

const addressHint = `write an address such as "127.0.0.1:8500", or a list of them, such as ` +
	`["https://10.0.0.1:8501", "https://10.0.0.2:8501"]`

// maxAddresses is how many addresses of Consul a list may have.
const maxAddresses = 16

// isList reports whether an argument is written as a list ([...]).
func (b *block) isList(name string) bool {
	if !b.has(name) {
		return false
	}
	_, diags := hcl.ExprList(b.attrs[name].Expr)
	return !diags.HasErrors()
}

// addresses returns the addresses of Consul. An address begins with https:// if CONSUL_HTTP_SSL is true and the
// configuration gives no scheme.
func (r *consulReader) addresses() Addresses {
	ssl := r.envBool("CONSUL_HTTP_SSL", false)
	if r.block.isList("address") {
		return r.addressList(ssl)
	}
	s := r.setting(r.block, "address", "CONSUL_HTTP_ADDR")
	address := s.value
	if !s.set() {
		address = DefaultConsulAddress
	}
	return Addresses(r.address(s, address, ssl))
}

// address checks an address of Consul, and returns it with a scheme if ssl is true.
func (r *consulReader) address(s setting, address string, ssl bool) string {
	_, err := hostport.ParseAgent(address)
	switch {
	case err != nil:
		r.bad(s, "Bad Consul address", "%v", err)
	case strings.Contains(address, "\n"):
		r.bad(s, "Bad Consul address", "an address is one line. To give several, write a list")
		return DefaultConsulAddress
	}
	if ssl && !strings.Contains(address, "://") {
		return "https://" + address
	}
	return address
}

// addressList reads the argument address, which is a list.
func (r *consulReader) addressList(ssl bool) Addresses {
	exprs := r.block.items("address", "")
	switch {
	case len(exprs) == 0:
		r.problem(r.block.rangeOf("address"), "Empty list", "address: %s.", addressHint)
	case len(exprs) > maxAddresses:
		r.problem(r.block.rangeOf("address"), "Too many addresses", "address: %d are too many. Write at most %d, or "+
			"a host name with several IP addresses.", len(exprs), maxAddresses)
	}
	var all []string
	var seen []hostport.Agent
	for _, expr := range exprs {
		v, ok := r.evaluate("address", expr, cty.String, addressHint)
		if !ok {
			continue
		}
		one := r.address(setting{value: v.AsString(), from: "address", at: expr.Range().Ptr()}, v.AsString(), ssl)
		agent, err := hostport.ParseAgent(one)
		switch {
		case err != nil:
			continue
		case slices.Contains(seen, agent):
			r.problem(expr.Range().Ptr(), "Duplicate address", "address: %q is listed twice. Remove one of them.", one)
		case len(seen) > 0 && agent.URL.Scheme != seen[0].URL.Scheme:
			r.problem(expr.Range().Ptr(), "Mixed addresses", "address: %q and %q. Either all addresses begin with "+
				"https://, or none, because the settings for TLS and connections hold for all of them.", all[0], one)
		}
		all, seen = append(all, one), append(seen, agent)
	}
	return Addresses(strings.Join(all, "\n"))
}

// warnOfRegistration warns if register is used with several addresses.
func (r *consulReader) warnOfRegistration(c *Consul) {
	if c.Register && len(c.Address.All()) > 1 {
		r.report(hcl.DiagWarning, r.block.rangeOf("register"), "Registration with several agents",
			"register: Consul shows lictor at the node of the agent or server that is in use, and for "+
				"up to 10 minutes at the one before. To register at this host's node only, write the address of "+
				"this host's agent, and no list.")
	}
}
