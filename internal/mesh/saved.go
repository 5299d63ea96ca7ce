package mesh

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"time"
)

// saved is what Export returns, as JSON.
type saved struct {
	TrustDomain string       `json:"trust_domain"`
	Roots       []savedRoot  `json:"roots"`
	Leaves      []savedLeaf  `json:"leaves"`
	Rules       []savedRules `json:"rules"`
}

// A savedRoot is an authority as Consul gives it.
type savedRoot struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	PEM    string `json:"pem"`
	Active bool   `json:"active"`
}

type savedLeaf struct {
	Name     string    `json:"name"`
	Cert     []byte    `json:"cert"`
	Key      []byte    `json:"key"`
	Received time.Time `json:"received"`
}

type savedRules struct {
	Destination  string      `json:"destination"`
	Intentions   []Intention `json:"intentions"`
	DefaultAllow bool        `json:"default_allow"`
}

// Export returns the authorities, the certificates and the intentions of the Store, for Options.Saved of another Store.
// The result has private keys: it must stay in memory, and in no log.
func (s *Store) Export() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		return nil
	}
	all := saved{TrustDomain: s.known.domain, Roots: s.known.given}
	for _, i := range s.all {
		if i.leaf == nil {
			continue
		}
		one := savedLeaf{Name: i.name, Received: i.leaf.received}
		for _, der := range i.leaf.pair.Certificate {
			one.Cert = append(one.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		der, err := x509.MarshalPKCS8PrivateKey(i.leaf.pair.PrivateKey)
		if err != nil {
			continue // the other Store asks Consul
		}
		one.Key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		all.Leaves = append(all.Leaves, one)
	}
	for _, d := range s.destinations {
		if r := d.current.Load(); r != nil {
			all.Rules = append(all.Rules, savedRules{d.name, r.all, r.allow})
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil
	}
	return text
}

// restore takes what Export has returned. What cannot be used is left out: Consul will give it.
func (s *Store) restore(text []byte) {
	var all saved
	if len(text) == 0 || json.Unmarshal(text, &all) != nil {
		return
	}
	r, err := newRoots(all.TrustDomain, all.Roots)
	if err != nil {
		return
	}
	s.known, s.saved = &r, map[string]leaf{}
	for _, one := range all.Leaves {
		if l, err := newLeaf(one.Name, one.Cert, one.Key, one.Received); err == nil {
			s.saved[one.Name] = l
		}
	}
	s.savedRules = map[string]*rules{}
	for _, one := range all.Rules {
		s.savedRules[one.Destination] = newRules(one.Intentions, one.DefaultAllow)
	}
}
