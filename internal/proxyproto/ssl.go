package proxyproto

import "encoding/binary"

// Types of TLVs about a TLS connection with the client (sections 2.2.1, 2.2.2 and 2.2.6).
const (
	ALPN      Type = 0x01 // the protocol that was negotiated
	Authority Type = 0x02 // the name that the client asked for (SNI)
	SSL       Type = 0x20 // see AppendSSL
)

// Identity is the type of the SPIFFE ID that the client has proved by its certificate. The specification of the PROXY
// protocol knows no such TLV. Istio's node proxy (ztunnel) has introduced this type, and other programs read it.
const Identity Type = 0xd0

// Types of the TLVs inside of one of type SSL.
const (
	sslVersion Type = 0x21
	sslCN      Type = 0x22
	sslCipher  Type = 0x23
)

// Bits of the first byte of a TLV of type SSL.
const (
	sslSpoken   = 0x01 // the client speaks TLS
	sslConnCert = 0x02 // the client has shown a certificate over this connection
	sslSessCert = 0x04 // the client has shown a certificate over this connection or the one that it resumes
)

// A TLSClient says what a proxy knows of a client that speaks TLS with it.
type TLSClient struct {
	Version string // such as "TLSv1.3"
	Cipher  string // as OpenSSL calls it, such as "ECDHE-RSA-AES128-GCM-SHA256"

	Certificate bool   // the client has shown a certificate, which was verified
	Resumed     bool   // the client showed it over an earlier connection, whose session goes on
	CommonName  string // of that certificate; empty if it has none
}

// AppendSSL appends a TLV of type SSL to t, and returns the result (section 2.2.6).
func (t TLVs) AppendSSL(c TLSClient) TLVs {
	start, bits := len(t), byte(sslSpoken)
	if c.Certificate {
		bits |= sslSessCert
		if !c.Resumed {
			bits |= sslConnCert
		}
	}
	t = append(t, byte(SSL), 0, 0, bits, 0, 0, 0, 0) // zero: the certificate was verified, if there is one
	t = t.Append(sslVersion, []byte(c.Version)).Append(sslCipher, []byte(c.Cipher))
	if c.Certificate && c.CommonName != "" {
		t = t.Append(sslCN, []byte(c.CommonName))
	}
	size := len(t) - start - tlvSize
	if size > MaxHeader {
		return t[:start]
	}
	binary.BigEndian.PutUint16(t[start+1:], uint16(size))
	return t
}
