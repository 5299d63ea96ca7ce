package config

import (
	"net/netip"
	"time"
)

// AcceptProxy says that the clients of a service are proxies that send a PROXY header.
type AcceptProxy struct {
	From    []netip.Prefix // the addresses of the proxies; at least one
	Timeout time.Duration  `zero:""` // time for a client to send its header; zero for UDP
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

// ProxyDatagrams says which datagrams to an endpoint have a PROXY header. It is zero if none has.
type ProxyDatagrams int

// The choices of datagrams.
const (
	ProxyEach  ProxyDatagrams = 1 + iota // all
	ProxyFirst                           // the first one of each session
)

func proxyDatagramsNames() []string { return []string{"each", "first"} }

// String returns the name in the configuration.
func (d ProxyDatagrams) String() string { return nameOf(int(d)-1, proxyDatagramsNames()) }

// UnmarshalText takes the names that String returns.
func (d *ProxyDatagrams) UnmarshalText(text []byte) error {
	i, err := indexOf(string(text), proxyDatagramsNames())
	if err == nil {
		*d = ProxyDatagrams(1 + i)
	}
	return err
}

// sendProxy reads send_proxy and send_proxy_udp. It must run after timeouts.
func (b *block) sendProxy(s *Service) {
	if b.has("send_proxy") {
		_ = s.SendProxy.UnmarshalText([]byte(b.oneOf("send_proxy", ProxyV2.String(), proxyVersionNames())))
	}
	datagrams := b.oneOf("send_proxy_udp", ProxyEach.String(), proxyDatagramsNames())
	if s.Protocol != UDP {
		return
	}
	switch {
	case s.SendProxy == ProxyV1:
		b.l.problem(b.rangeOf("send_proxy"), "Version of another protocol",
			"send_proxy: version 1 of the PROXY protocol knows TCP only, and this service is udp. Write \"v2\".")
	case s.SendProxy == ProxyV2:
		_ = s.SendProxyUDP.UnmarshalText([]byte(datagrams))
		if s.SendProxyUDP == ProxyFirst && s.Responses == Off {
			b.l.problem(b.rangeOf("send_proxy_udp"), "Arguments that exclude each other",
				"send_proxy_udp cannot be \"first\" with responses = 0: all clients then share a socket to the "+
					"instance, so "+
					"it cannot tell to whom a datagram without a header belongs. Write \"each\".")
		}
	case b.has("send_proxy_udp"):
		b.l.problem(b.attrs["send_proxy_udp"].NameRange.Ptr(), "Argument without send_proxy",
			"send_proxy_udp says which datagrams have the header of send_proxy. "+
				"Remove it, or write send_proxy = \"v2\".")
	}
}

// proxyProtocol reads accept_proxy, send_proxy and send_proxy_udp.
func (b *block) proxyProtocol(s *Service) {
	b.sendProxy(s)
	a := b.single("accept_proxy", acceptProxySchema())
	if a == nil {
		return
	}
	s.AcceptProxy = &AcceptProxy{From: a.prefixes("from", "If clients send no PROXY header, remove accept_proxy")}
	timeout := a.durationAboveZero("timeout", DefaultAcceptProxyTimeout,
		"it is the time that a client has to send its header. The default is \"3s\"")
	if s.Protocol == TCP {
		s.AcceptProxy.Timeout = timeout
	} else if attr := a.attrs["timeout"]; attr != nil {
		b.l.problem(attr.NameRange.Ptr(), "Argument of another protocol",
			"timeout is for tcp, and this service is udp: each datagram begins with the header. Remove it.")
	}
	if !a.has("from") {
		a.missing("from", "accept_proxy needs from, the addresses of the proxies whose headers are believed, "+
			"such as from = %s.", clientsExample)
	}
}
