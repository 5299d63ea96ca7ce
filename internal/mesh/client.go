package mesh

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
)

// defaultTenancy is the name of the partition and of the namespace of whatever names none.
const defaultTenancy = "default"

// A Client is a service of the mesh, as its certificate names it.
type Client struct {
	URI         string // the SPIFFE ID in canonical form
	Serial      string // of the certificate, in the form that Consul shows
	TrustDomain string // in lower case
	Partition   string // "default" if the ID has none
	Namespace   string
	Datacenter  string
	Service     string
}

// ClientOf returns the service that a certificate is for. The certificate must have exactly one URI name, and that must
// be the SPIFFE ID of a service: the IDs of gateways, agents and servers are errors. ClientOf does not verify the
// certificate.
func ClientOf(cert *x509.Certificate) (Client, error) {
	if n := len(cert.URIs); n != 1 {
		return Client{}, fmt.Errorf("the client's certificate has %d URI names, but must have one", n)
	}
	of, err := parseID(cert.URIs[0])
	if err != nil {
		return Client{}, fmt.Errorf("the client's certificate: %w", err)
	}
	c, is := serviceOf(of)
	if !is {
		return Client{}, fmt.Errorf("the client proves to be %q, which is not a service", cert.URIs[0].String())
	}
	c.Serial = serialOf(cert)
	return c, nil
}

// serviceOf returns the service that an ID names, without a serial number. It returns false if that is no service.
func serviceOf(of id) (Client, bool) {
	parts := strings.Split(of.path, "/")[1:]
	for i, part := range parts {
		plain, err := url.PathUnescape(part)
		if err != nil || plain == "" {
			return Client{}, false
		}
		parts[i] = plain
	}
	c := Client{URI: of.String(), TrustDomain: of.domain, Partition: defaultTenancy}
	if len(parts) == 8 && parts[0] == "ap" {
		c.Partition, parts = parts[1], parts[2:]
	}
	if len(parts) != 6 || parts[0] != "ns" || parts[2] != "dc" || parts[4] != "svc" {
		return Client{}, false
	}
	c.Namespace, c.Datacenter, c.Service = parts[1], parts[3], parts[5]
	return c, true
}
