package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/lictor-proxy/lictor/internal/hostport"
	"github.com/lictor-proxy/lictor/internal/regular"
)

const adminHint = `write "off", an address such as "127.0.0.1:8510", or "unix:///path/to/socket"`

// admin reads the admin block. It must run after services, because the admin address must not be a service's address.
func (l *loader) admin(root *block) {
	b := root.single("admin", adminSchema())
	if b == nil {
		return
	}
	a := &l.cfg.Admin
	a.TokenFile = b.tokenFile()
	a.Hosts = b.hosts()
	v, ok := b.value("listen", cty.DynamicPseudoType, adminHint)
	if !ok {
		return
	}
	at := b.rangeOf("listen")
	if v.Type() == cty.String {
		path, isSocket := strings.CutPrefix(v.AsString(), "unix://")
		switch {
		case v.AsString() == "off":
			a.Off = true
			return
		case isSocket && !strings.HasPrefix(path, "/"):
			l.problem(at, "Bad listen address", "%q: the path of a socket must be absolute. Write something like "+
				"\"unix:///run/lictor/admin.sock\".", v.AsString())
			return
		case isSocket:
			a.Socket = path
			l.claim(claim{path: path, protocol: TCP, service: "admin", api: true, at: *at})
			return
		}
	} else if v.Type() != cty.Number {
		l.problem(at, "Wrong type", "listen: %s.", adminHint)
		return
	}
	addr, problem := listenAddress(v)
	if problem != "" {
		l.problem(at, "Bad listen address", "%s.", problem)
		return
	}
	a.TCP = addr
	l.claim(claim{addr: addr, protocol: TCP, service: "admin", api: true, at: *at})
	if !addr.Addr().IsLoopback() && b.attrs["token_file"] == nil {
		l.problem(at, "Admin API open to others", "Other hosts can reach %s. They could drain endpoints and "+
			"change the configuration. Set token_file too, or listen on 127.0.0.1.", addr)
	}
}

// tokenFile reads the argument token_file and returns the path. It reports a file that cannot be read or is empty.
func (b *block) tokenFile() string {
	path, ok := b.text("token_file")
	if !ok {
		return ""
	}
	text, err := regular.ReadFile(path, maxTokenFile)
	switch {
	case err != nil:
		b.l.problem(b.rangeOf("token_file"), "Unreadable file", "token_file: %v.", err)
	case strings.TrimSpace(string(text)) == "":
		b.l.problem(b.rangeOf("token_file"), "Empty token",
			"token_file: the file %s is empty. Put a token into it.", path)
	}
	return path
}

func (b *block) hosts() (names []string) {
	for _, expr := range b.items("hosts", `["lictor.example.com"]`) {
		v, ok := b.l.evaluate("hosts", expr, cty.String, "write each name in quotes")
		if !ok {
			continue
		}
		if problem := badHost(v.AsString()); problem != "" {
			b.l.problem(expr.Range().Ptr(), "Bad host name", "%s.", problem)
			continue
		}
		names = append(names, strings.ToLower(v.AsString()))
	}
	return names
}

func badHost(name string) string {
	if _, err := netip.ParseAddr(name); err == nil {
		return fmt.Sprintf("%q: IP addresses are always allowed. Remove it", name)
	}
	if !hostport.IsHostName(name) {
		return fmt.Sprintf("%q is not a host name. Write a name without scheme and port, such as "+
			"\"lictor.example.com\"", name)
	}
	return ""
}
