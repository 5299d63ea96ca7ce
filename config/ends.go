package config

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"
)

// AcceptTLS says how TLS is spoken with the clients of a service. The first certificate is CertFile with KeyFile, or
// the first one of Certificate if CertFile is empty. Clients that ask for no name, or for an unknown one, get that one.
type AcceptTLS struct {
	CertFile, KeyFile string
	Certificate       []CertificateFiles // further certificates
	ClientCAFile      string             // authorities of client certificates; empty: clients need none
	MinVersion        TLSVersion
	ALPN              []string      // protocols that are offered to clients, the best first
	Timeout           time.Duration // time for a client's handshake
}

// Certificates returns the files of all certificates, the first one first.
func (t *AcceptTLS) Certificates() []CertificateFiles {
	if t.CertFile == "" {
		return t.Certificate
	}
	return append([]CertificateFiles{{t.CertFile, t.KeyFile}}, t.Certificate...)
}

// CertificateFiles name the files of a certificate and its key.
type CertificateFiles struct{ CertFile, KeyFile string }

// EndpointTLS says how TLS is spoken with the endpoints of a service.
type EndpointTLS struct {
	CAFile, CAPath     string // authorities of the endpoints' certificates; both empty: the system's
	CertFile, KeyFile  string // Lictor's own certificate; both empty: none
	ServerName         string // the name in the endpoints' certificates; empty: that of each endpoint
	InsecureSkipVerify bool
	MinVersion         TLSVersion

	// ServerNameMeta is the key of the name in the meta of each instance, and ServerNameTag is how the tag begins that
	// has the name as its rest. At most one of ServerName, ServerNameMeta and ServerNameTag is set.
	ServerNameMeta, ServerNameTag string

	ALPN []string // protocols that are offered to endpoints, the best first
}

// NameFromInstance returns where each instance gives its name, as text such as `its meta "tls_server_name"`. It returns
// "" if t is nil, or if instances give no names.
func (t *EndpointTLS) NameFromInstance() string {
	switch {
	case t == nil:
		return ""
	case t.ServerNameMeta != "":
		return fmt.Sprintf("its meta %q", t.ServerNameMeta)
	case t.ServerNameTag != "":
		return fmt.Sprintf("a tag that begins with %q", t.ServerNameTag)
	}
	return ""
}

// TLSVersion is a version of TLS.
type TLSVersion int

// The versions of TLS.
const (
	TLS12 TLSVersion = iota
	TLS13
)

func tlsVersionNames() []string { return []string{"1.2", "1.3"} }

// String returns the version's name in the configuration.
func (v TLSVersion) String() string { return nameOf(int(v), tlsVersionNames()) }

// UnmarshalText takes the names that String returns.
func (v *TLSVersion) UnmarshalText(text []byte) error { return parse(v, text, tlsVersionNames()) }

// Number returns the version as package crypto/tls has it, such as tls.VersionTLS12.
func (v TLSVersion) Number() uint16 { return tls.VersionTLS12 + uint16(v) }

// ends reads how TLS is spoken at both ends of a service.
func (b *block) ends(s *Service) {
	if s.Protocol == UDP {
		return // foreign has reported the blocks
	}
	if t := b.single("tls", acceptTLSSchema()); t != nil {
		s.TLS = t.acceptTLS()
	}
	if t := b.single("endpoint_tls", endpointTLSSchema()); t != nil {
		s.EndpointTLS = t.endpointTLS()
		t.instanceNames(s.EndpointTLS, len(b.blocks.OfType("consul")) == 0 && len(b.blocks.OfType("static")) > 0)
	}
}

// acceptTLS reads a tls block of a service.
func (b *block) acceptTLS() *AcceptTLS {
	r := &settings{loader: b.l}
	t := &AcceptTLS{MinVersion: b.minVersion(), ALPN: b.alpn()}
	t.CertFile, t.KeyFile = r.certificate(b)
	for _, inner := range b.blocks.OfType("certificate") {
		one := b.inner(inner, certificateSchema())
		var files CertificateFiles
		files.CertFile, files.KeyFile = r.certificate(one)
		if !one.has("cert_file") && !one.has("key_file") {
			one.missing("cert_file", "A certificate block needs cert_file, the file of the certificate, and key_file, "+
				"the file of its key.")
		}
		t.Certificate = append(t.Certificate, files)
	}
	if !b.has("cert_file") && !b.has("key_file") && len(t.Certificate) == 0 {
		b.missing("cert_file", "A tls block needs cert_file, the file of the certificate that clients get, and "+
			"key_file, the file of its key. The tls block is about clients; endpoint_tls is about instances.")
	}
	ca := r.setting(b, "client_ca_file", "")
	if t.ClientCAFile = ca.value; ca.set() {
		if err := checkCA(ca.value); err != nil {
			r.bad(ca, "Unusable file", "%v", err)
		}
	}
	t.Timeout = b.durationAboveZero("timeout", DefaultHandshakeTimeout,
		"it is the time that a client has for the TLS handshake. The default is \"10s\"")
	return t
}

// certificate reads cert_file and key_file of a block, and checks the files.
func (r *settings) certificate(b *block) (certFile, keyFile string) {
	cert, key := r.setting(b, "cert_file", ""), r.setting(b, "key_file", "")
	r.keyPair(cert, key, "certificate")
	return cert.value, key.value
}

// endpointTLS reads an endpoint_tls block.
func (b *block) endpointTLS() *EndpointTLS {
	var t TLS
	(&settings{loader: b.l}).readTLS(b, &t, tlsVariables{})
	return &EndpointTLS{CAFile: t.CAFile, CAPath: t.CAPath, CertFile: t.CertFile, KeyFile: t.KeyFile,
		ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify,
		MinVersion: b.minVersion(), ALPN: b.alpn()}
}

// instanceNames reads where each instance gives its name. onlyStatic says that no instance of the service is in Consul.
func (b *block) instanceNames(t *EndpointTLS, onlyStatic bool) {
	t.ServerNameMeta, _ = b.shortText("server_name_meta", maxConsulName)
	t.ServerNameTag, _ = b.shortText("server_name_tag", maxConsulName)
	if !isMetaKey(t.ServerNameMeta) {
		b.l.problem(b.rangeOf("server_name_meta"), "Bad key", "server_name_meta: in Consul, a key of meta has at most "+
			"%d letters, digits, hyphens and underscores. Write such a key, like \"tls_server_name\".", maxMetaKey)
	}
	first := ""
	for _, name := range []string{"server_name", "server_name_meta", "server_name_tag"} {
		if !b.has(name) {
			continue
		}
		at := b.attrs[name].NameRange.Ptr()
		if onlyStatic && name != "server_name" {
			b.l.problem(at, "Static endpoints have no names", "%s: only instances in Consul have meta and tags, and "+
				"this service has only static endpoints. Use server_name, or add a consul block.", name)
		}
		if first != "" {
			b.l.problem(at, "Arguments that exclude each other", "An endpoint_tls block cannot have both %s and %s. "+
				"Remove one.", first, name)
			continue
		}
		first = name
	}
}

// maxMetaKey is Consul's limit for a key of meta, in bytes.
const maxMetaKey = 128

// isMetaKey reports whether Consul allows key in meta. The empty key, which stands for none, is allowed.
func isMetaKey(key string) bool {
	return len(key) <= maxMetaKey && !strings.ContainsFunc(key, func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// minVersion reads min_version.
func (b *block) minVersion() (v TLSVersion) {
	if text, _ := b.plainText("min_version"); slices.Contains([]string{"1.0", "1.1"}, text) {
		b.l.problem(b.rangeOf("min_version"), "Unsafe version of TLS", "min_version: TLS 1.0 and 1.1 are not safe, "+
			"and Lictor does not speak them (RFC 8996). Write \"1.2\", which all current clients and servers know.")
		return v
	}
	_ = v.UnmarshalText([]byte(b.oneOf("min_version", TLS12.String(), tlsVersionNames())))
	return v
}

// maxALPN is the maximum size of all names of protocols together, in bytes. They must leave room in a ClientHello.
const maxALPN = 4096

// alpn reads the names of protocols that are offered by ALPN.
func (b *block) alpn() []string {
	all := b.texts("alpn", `["h2", "http/1.1"]`, "protocol")
	if len(strings.Join(all, " ")) > maxALPN {
		b.l.problem(b.rangeOf("alpn"), "Text too long",
			"alpn: the names together have more than %d bytes. Remove some.", maxALPN)
	}
	return all
}
