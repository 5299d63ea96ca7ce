package config

import (
	"net/netip"
	"time"
)

// AcceptProxy says that the clients of a service are proxies that send a PROXY header.
type AcceptProxy struct {
	From    []netip.Prefix // the addresses of the proxies; at least one
	Timeout time.Duration  // time for a client to send its header
}

// ProxyVersion is a version of the PROXY protocol. It is zero for endpoints that get no header.
type ProxyVersion int

// The versions of the PROXY protocol.
const (
	ProxyV1 ProxyVersion = 1 + iota
	ProxyV2
)

func proxyVersionNames() []string { return []string{"v1", "v2"} }

// String returns the version's name in the configuration.
func (v ProxyVersion) String() string { return nameOf(int(v)-1, proxyVersionNames()) }

// UnmarshalText takes the names that String returns.
func (v *ProxyVersion) UnmarshalText(text []byte) error {
	i, err := indexOf(string(text), proxyVersionNames())
	if err == nil {
		*v = ProxyVersion(1 + i)
	}
	return err
}

// proxyProtocol reads accept_proxy and send_proxy.
func (b *block) proxyProtocol(s *Service) {
	if b.has("send_proxy") {
		_ = s.SendProxy.UnmarshalText([]byte(b.oneOf("send_proxy", ProxyV2.String(), proxyVersionNames())))
	}
	a := b.single("accept_proxy", acceptProxySchema())
	if a == nil {
		return
	}
	s.AcceptProxy = &AcceptProxy{
		From: a.prefixes("from", "If clients send no PROXY header, remove accept_proxy"),
		Timeout: a.durationAboveZero("timeout", DefaultAcceptProxyTimeout,
			"it is the time that a client has to send its header. The default is \"3s\""),
	}
	if !a.has("from") {
		a.missing("from", "accept_proxy needs from, the addresses of the proxies whose headers are believed, "+
			"such as from = %s.", clientsExample)
	}
}
