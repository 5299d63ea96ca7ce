package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/statefile"
	"github.com/lictor-proxy/lictor/lb"
)

// A savedSet is the set of one query, in the form in which it is saved.
type savedSet struct {
	query     string    // the result of Consul.savedKey
	changed   time.Time // when the set last changed
	endpoints []lb.Endpoint
	held      map[string]hold   // holds of held endpoints, by ID
	joined    map[lb.Place]bool // see belief
}

// saved contains the sets of a process, and where they come from.
type saved struct {
	origin origin
	sets   []savedSet
	chains map[string][]target // targets of discovery chains, by follower.key; nil: none
}

// The mark and the version of the file. Its body is JSON.
const (
	savedMark    = "lictor-endpoints"
	savedVersion = 1
)

// savedJSON is the body of a file.
type savedJSON struct {
	// Address is the address of the agent that the sets come from. Files of old versions have no address, and match any
	// agent.
	Address string `json:"address,omitempty"`

	// TrustDomain and Datacenter are the fields of consul.Cluster. Old versions of Lictor ignore these two fields of
	// the file.
	TrustDomain string `json:"trust_domain,omitempty"`
	Datacenter  string `json:"datacenter,omitempty"`

	Sets []savedSetJSON `json:"sets"`

	// Old versions of Lictor ignore Chains.
	Chains map[string][]savedTargetJSON `json:"chains,omitempty"`
}

type savedTargetJSON struct {
	Service     string `json:"service"`
	Subset      string `json:"subset,omitempty"`
	Filter      string `json:"filter,omitempty"`
	Datacenter  string `json:"datacenter,omitempty"`
	SNI         string `json:"sni,omitempty"`
	OnlyPassing bool   `json:"only_passing,omitempty"`
	Remote      bool   `json:"remote,omitempty"`
}

type savedSetJSON struct {
	Query     string              `json:"query"`
	Changed   time.Time           `json:"changed"`
	Endpoints []savedEndpointJSON `json:"endpoints"`
}

type savedEndpointJSON struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Weight  int    `json:"weight"`

	// Old versions of Lictor ignore the following fields, and treat held endpoints as normal members of the set.
	HeldFor   string     `json:"held_for,omitempty"` // the text of a HoldReason
	HeldUntil *time.Time `json:"held_until,omitempty"`
	Joined    bool       `json:"joined,omitempty"` // joined the set while other endpoints were held

	// Old versions of Lictor ignore ServerName and Identity, and have no query that asks for one.
	ServerName string `json:"server_name,omitempty"`
	Identity   string `json:"identity,omitempty"`

	// Old versions of Lictor ignore Zone and Near, and have no query that asks for them.
	Zone string `json:"zone,omitempty"`
	Near bool   `json:"near,omitempty"`
}

// fits reports whether the endpoints may be used for q. An endpoint of the mesh needs an Identity to be verified.
func (s *savedSet) fits(q *Query) bool {
	return !q.Mesh || !slices.ContainsFunc(s.endpoints, func(e lb.Endpoint) bool { return e.Identity == "" })
}

// encodeSaved returns the content of a file with the sets of all.
func encodeSaved(all saved) ([]byte, error) {
	from := all.origin
	file := savedJSON{Address: from.address, TrustDomain: from.cluster.TrustDomain,
		Datacenter: from.cluster.Datacenter, Sets: make([]savedSetJSON, 0, len(all.sets))}
	for _, s := range all.sets {
		one := savedSetJSON{Query: s.query, Changed: s.changed,
			Endpoints: make([]savedEndpointJSON, 0, len(s.endpoints))}
		for _, e := range s.endpoints {
			one.Endpoints = append(one.Endpoints, s.encodeEndpoint(e))
		}
		file.Sets = append(file.Sets, one)
	}
	for key, targets := range all.chains {
		if file.Chains == nil {
			file.Chains = map[string][]savedTargetJSON{}
		}
		for _, t := range targets {
			file.Chains[key] = append(file.Chains[key],
				savedTargetJSON{t.service, t.subset, t.filter, t.datacenter, t.sni, t.onlyPassing, t.remote})
		}
	}
	body, err := json.Marshal(file)
	if err != nil {
		return nil, err
	}
	return statefile.Encode(savedMark, savedVersion, body), nil
}

func (s *savedSet) encodeEndpoint(e lb.Endpoint) savedEndpointJSON {
	one := savedEndpointJSON{ID: e.ID, Address: e.Address(), Weight: e.Weight, Joined: s.joined[e.Place()],
		ServerName: e.ServerName, Identity: e.Identity, Zone: e.Zone, Near: e.Near}
	if h, held := s.held[e.ID]; held {
		one.HeldFor, one.HeldUntil = h.why.String(), &h.until
	}
	return one
}

// decodeSaved returns the sets in a file. For a damaged or foreign file, decodeSaved returns an error, or sets that
// could have come from Consul.
func decodeSaved(file []byte) (all saved, err error) {
	body, err := statefile.Decode(savedMark, savedVersion, file)
	if err != nil {
		return saved{}, err
	}
	var content savedJSON
	if err := json.Unmarshal(body, &content); err != nil {
		return saved{}, fmt.Errorf("%w: %w", statefile.ErrForeign, err)
	}
	if all.sets, err = decodeSets(content); err != nil {
		return saved{}, err
	}
	if all.chains, err = decodeChains(content); err != nil {
		return saved{}, err
	}
	all.origin = origin{content.Address, consul.Cluster{
		TrustDomain: content.TrustDomain, Datacenter: content.Datacenter}}
	return all, nil
}

func decodeChains(content savedJSON) (map[string][]target, error) {
	if len(content.Chains) == 0 {
		return nil, nil
	}
	chains := make(map[string][]target, len(content.Chains))
	for key, targets := range content.Chains {
		if len(targets) == 0 || len(targets) > maxTargets {
			return nil, fmt.Errorf("%w: a discovery chain has %d targets", statefile.ErrForeign, len(targets))
		}
		for _, t := range targets {
			if t.Service == "" || t.SNI != "" && !isServerName(t.SNI) {
				return nil, fmt.Errorf("%w: a discovery chain has a target that Consul does not have",
					statefile.ErrForeign)
			}
			chains[key] = append(chains[key],
				target{t.Service, t.Subset, t.Filter, t.Datacenter, t.SNI, t.OnlyPassing, t.Remote})
		}
	}
	return chains, nil
}

func decodeSets(content savedJSON) ([]savedSet, error) {
	var sets []savedSet
	seen := map[string]bool{}
	for _, one := range content.Sets {
		if one.Query == "" || seen[one.Query] {
			return nil, fmt.Errorf("%w: a query has no name or occurs twice", statefile.ErrForeign)
		}
		seen[one.Query] = true
		s := savedSet{query: one.Query, changed: one.Changed}
		ids, addresses := map[string]bool{}, map[string]bool{}
		for _, e := range one.Endpoints {
			if len(e.ID) > maxID { // an earlier version allowed long IDs
				continue
			}
			endpoint, err := decodeEndpoint(e)
			if err == nil && (ids[e.ID] || addresses[endpoint.Address()]) {
				err = errors.New("occurs twice")
			}
			if err != nil {
				return nil, fmt.Errorf("%w: endpoint %q: %w", statefile.ErrForeign, e.ID, err)
			}
			ids[e.ID], addresses[endpoint.Address()] = true, true
			s.endpoints = append(s.endpoints, endpoint)
			s.decodeHold(endpoint, e)
		}
		sets = append(sets, s)
	}
	return sets, nil
}

// decodeHold reads how an endpoint is held, if it is held. An unknown reason of a later version counts as
// HoldForgotten, the mildest reason.
func (s *savedSet) decodeHold(e lb.Endpoint, saved savedEndpointJSON) {
	if saved.Joined {
		if s.joined == nil {
			s.joined = map[lb.Place]bool{}
		}
		s.joined[e.Place()] = true
	}
	if saved.HeldUntil == nil {
		return
	}
	if s.held == nil {
		s.held = map[string]hold{}
	}
	h := hold{why: HoldForgotten, until: *saved.HeldUntil}
	for _, why := range []HoldReason{HoldDeregistered, HoldCritical} {
		if saved.HeldFor == why.String() {
			h.why = why
		}
	}
	s.held[e.ID] = h
}

func decodeEndpoint(e savedEndpointJSON) (lb.Endpoint, error) {
	service, err := decodeAddress(e.Address)
	if err != nil {
		return lb.Endpoint{}, err
	}
	endpoint, err := endpointOf(&entry{Node: &entryNode{}, Service: service}, "") // as for answers of Consul
	switch {
	case err != nil:
		return lb.Endpoint{}, err
	case e.ID == "" || e.Weight < 1 || e.Weight > maxWeight:
		return lb.Endpoint{}, errors.New("has no ID, or a weight that Consul does not allow")
	case e.ServerName != "" && !isServerName(e.ServerName):
		return lb.Endpoint{}, errors.New("has a server name that is neither a host name nor an IP address")
	case e.Identity != "" && !isIdentity(e.Identity):
		return lb.Endpoint{}, errors.New("has an identity that the mesh does not have")
	}
	endpoint.ID, endpoint.Weight, endpoint.ServerName, endpoint.Identity = e.ID, e.Weight, e.ServerName, e.Identity
	endpoint.Zone, endpoint.Near = e.Zone, e.Near
	return endpoint, nil
}

// decodeAddress returns a service at an address, which is the text of lb.Endpoint.Address.
func decodeAddress(address string) (*entryService, error) {
	if path, is := lb.UnixPath(address); is {
		return &entryService{SocketPath: path}, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return &entryService{Address: host, Port: int(number)}, err
}
