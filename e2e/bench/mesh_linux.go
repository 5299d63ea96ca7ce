package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// This file has the far end of the loads whose proxies speak the TLS of Consul's mesh with endpoints: an agent, and
// backends with certificates of it. The backends refuse whoever would not be compared fairly, see checkMesh.

// meshIdentity is the service as which the proxies dial the service called meshService.
const meshIdentity = "web"

// A mesh is an agent of Consul with files of certificates.
type mesh struct {
	agent  *testconsul.Agent
	files  meshFiles
	server tlsFiles // of the backends
}

// meshFiles is what a plan says of the mesh.
type meshFiles struct {
	Consul string // address of the agent
	Roots  string // path of the authorities
	TLS    tlsFiles
	Named  named
}

// startMesh starts an agent whose files are in a new folder in dir.
func startMesh(dir string) (*mesh, error) {
	binary, err := testconsul.Find()
	if err != nil {
		return nil, err
	}
	if dir, err = os.MkdirTemp(dir, "mesh"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m := &mesh{}
	if m.agent, err = testconsul.Start(ctx, testconsul.Options{Binary: binary, Dir: dir}); err != nil {
		return nil, err
	}
	if err := m.write(dir); err != nil {
		m.agent.Kill()
		return nil, err
	}
	return m, nil
}

// write writes the files of the authorities and of both sides' certificates.
func (m *mesh) write(dir string) error {
	client, err := m.agent.Client()
	if err != nil {
		return err
	}
	roots, _, err := client.Agent().ConnectCARoots(nil)
	if err != nil {
		return err
	}
	var text string
	for _, r := range roots.Roots {
		text += r.RootCertPEM
	}
	if m.files.Named, err = newNamed(dir); err != nil {
		return err
	}
	m.files.Consul, m.files.Roots = m.agent.HTTP, filepath.Join(dir, "roots.pem")
	err = os.WriteFile(m.files.Roots, []byte(text), 0o600)
	for service, to := range map[string]*tlsFiles{meshIdentity: &m.files.TLS, meshService: &m.server} {
		leaf, _, askErr := client.Agent().ConnectCALeaf(service, nil)
		if askErr != nil {
			return askErr
		}
		*to = tlsFiles{filepath.Join(dir, service+".pem"), filepath.Join(dir, service+"-key.pem"),
			filepath.Join(dir, service+"-both.pem")}
		err = errors.Join(err, os.WriteFile(to.Cert, []byte(leaf.CertPEM), 0o600),
			os.WriteFile(to.Key, []byte(leaf.PrivateKeyPEM), 0o600),
			os.WriteFile(to.Both, []byte(leaf.CertPEM+leaf.PrivateKeyPEM), 0o600))
	}
	return err
}

// register registers the backends as sidecars of the service.
func (m *mesh) register(b *backends) error {
	client, err := m.agent.Client()
	if err != nil {
		return err
	}
	for n, port := range b.meshPorts {
		err = errors.Join(err, client.Agent().ServiceRegister(&api.AgentServiceRegistration{
			Kind: api.ServiceKindConnectProxy, ID: string(rune('a' + n)), Name: meshService + "-sidecar",
			Address: "127.0.0.1", Port: port,
			Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: meshService},
		}))
	}
	return err
}

// stop ends the agent. A nil mesh has none.
func (m *mesh) stop() {
	if m != nil {
		m.agent.Kill()
	}
}

// args are the arguments of a backend: where its certificates are.
func (m *mesh) args() []string {
	if m == nil {
		return nil
	}
	return []string{m.server.Cert, m.server.Key, m.files.Roots, m.files.TLS.Cert, m.files.Named.TLS.Cert,
		m.files.Named.TLS.Key}
}

// listenMesh listens with the TLS of the mesh. args are those of mesh.args.
func listenMesh(args []string) (net.Listener, error) {
	pair, err := tls.LoadX509KeyPair(args[0], args[1])
	if err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(args[2])
	if err != nil {
		return nil, err
	}
	client, err := os.ReadFile(args[3])
	if err != nil {
		return nil, err
	}
	withName, err := tls.LoadX509KeyPair(args[4], args[5])
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(client)
	if block == nil {
		return nil, errors.New(args[3] + " has no certificate")
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	return tls.Listen("tcp4", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair, withName},
		ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
		SessionTicketsDisabled: true, CurvePreferences: []tls.CurveID{tls.X25519}, DynamicRecordSizingDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error { return checkMesh(state, block.Bytes) }})
}

// meshEnvironment makes proxies that are written in Go offer only groups that HAProxy offers, too. By default they also
// make a key for X25519MLKEM768, which OpenSSL 3.0 does not have.
const meshEnvironment = "GODEBUG=tlsmlkem=0"

// meshTerms is what checkMesh permits, for the report.
const meshTerms = "TLS of the mesh: the far end lets in only TLS 1.3, X25519, TLS_AES_128_GCM_SHA256, full " +
	"handshakes, and one client certificate (ECDSA P-256) from Consul. Proxies in Go run with " + meshEnvironment + "."

// checkMesh returns an error if a handshake costs less or more than the same of another proxy: each must be a full one
// of TLS 1.3, with the same certificate of the client, group and suite.
func checkMesh(state tls.ConnectionState, client []byte) error {
	if state.DidResume || state.CipherSuite != tls.TLS_AES_128_GCM_SHA256 || state.CurveID != tls.X25519 ||
		!bytes.Equal(state.PeerCertificates[0].Raw, client) {
		return fmt.Errorf("another handshake than that of others: %s, %v, resumed: %v, certificate %v",
			tls.CipherSuiteName(state.CipherSuite), state.CurveID, state.DidResume,
			state.PeerCertificates[0].SerialNumber)
	}
	return nil
}

// hasMesh reports whether loads are wanted that need a mesh.
func (o *options) hasMesh() bool {
	for _, l := range loads() {
		if l.mesh && o.only.MatchString(l.name) {
			return true
		}
	}
	return false
}
