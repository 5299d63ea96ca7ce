package discovery

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// A savedSet is the set of one query, as it is saved.
type savedSet struct {
	query     string    // as Consul.savedKey names it
	changed   time.Time // when the set last changed
	endpoints []lb.Endpoint
	held      map[string]hold // those of endpoints that are held, by ID
	joined    map[place]bool  // see belief
}

// saved are the sets of a process.
type saved struct {
	origin origin
	sets   []savedSet
}

// savedVersion is the version of the format. A file is a line with savedMark, the version, and the checksum of what
// follows; then JSON.
const savedVersion = 1

const savedMark = "lictor-endpoints"

var (
	errForeign = errors.New("not a file of saved endpoints")
	errDamaged = errors.New("damaged: the checksum does not match")
)

// The JSON of a file.
type savedJSON struct {
	// Address is that of the agent that the sets are from. It is empty in files of versions that did not save it, which
	// count as from any.
	Address string `json:"address,omitempty"`

	// TrustDomain and Datacenter are those of consul.Cluster. Versions of Lictor that do not know them ignore them.
	TrustDomain string `json:"trust_domain,omitempty"`
	Datacenter  string `json:"datacenter,omitempty"`

	Sets []savedSetJSON `json:"sets"`
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

	// Versions of Lictor that do not know the following ignore it: to them, held endpoints are in the set.
	HeldFor   string     `json:"held_for,omitempty"` // the text of a HoldReason
	HeldUntil *time.Time `json:"held_until,omitempty"`
	Joined    bool       `json:"joined,omitempty"` // while others were held
}

// encodeSaved returns the contents of a file with these sets.
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
	body, err := json.Marshal(file)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "%s %d %x\n", savedMark, savedVersion, sha256.Sum256(body)), body...), nil
}

func (s *savedSet) encodeEndpoint(e lb.Endpoint) savedEndpointJSON {
	one := savedEndpointJSON{ID: e.ID, Address: e.Address(), Weight: e.Weight, Joined: s.joined[placeOf(e)]}
	if h, held := s.held[e.ID]; held {
		one.HeldFor, one.HeldUntil = h.why.String(), &h.until
	}
	return one
}

// decodeSaved returns the sets in a file. Whatever has happened to the file, decodeSaved returns an error, or sets
// that could have come from Consul.
func decodeSaved(file []byte) (all saved, err error) {
	head, body, found := bytes.Cut(file, []byte("\n"))
	fields := bytes.Fields(head)
	if !found || len(fields) < 2 || string(fields[0]) != savedMark {
		return saved{}, errForeign
	}
	version, err := strconv.Atoi(string(fields[1]))
	switch {
	case err != nil || version < 1:
		return saved{}, errForeign
	case version != savedVersion:
		return saved{}, fmt.Errorf("of version %d, this lictor reads version %d", version, savedVersion)
	case len(fields) != 3 || string(fields[2]) != fmt.Sprintf("%x", sha256.Sum256(body)):
		return saved{}, errDamaged
	}
	var content savedJSON
	if err := json.Unmarshal(body, &content); err != nil {
		return saved{}, fmt.Errorf("%w: %w", errForeign, err)
	}
	if all.sets, err = decodeSets(content); err != nil {
		return saved{}, err
	}
	all.origin = origin{content.Address, consul.Cluster{
		TrustDomain: content.TrustDomain, Datacenter: content.Datacenter}}
	return all, nil
}

func decodeSets(content savedJSON) ([]savedSet, error) {
	var sets []savedSet
	seen := map[string]bool{}
	for _, one := range content.Sets {
		if one.Query == "" || seen[one.Query] {
			return nil, fmt.Errorf("%w: a query without a name, or twice", errForeign)
		}
		seen[one.Query] = true
		s := savedSet{query: one.Query, changed: one.Changed}
		ids, addresses := map[string]bool{}, map[string]bool{}
		for _, e := range one.Endpoints {
			if len(e.ID) > maxID { // an earlier version allowed that
				continue
			}
			endpoint, err := decodeEndpoint(e)
			if err == nil && (ids[e.ID] || addresses[endpoint.Address()]) {
				err = errors.New("is there twice")
			}
			if err != nil {
				return nil, fmt.Errorf("%w: endpoint %q: %w", errForeign, e.ID, err)
			}
			ids[e.ID], addresses[endpoint.Address()] = true, true
			s.endpoints = append(s.endpoints, endpoint)
			s.decodeHold(endpoint, e)
		}
		sets = append(sets, s)
	}
	return sets, nil
}

// decodeHold notes how an endpoint is held, if it is. A reason of a later version counts as the mildest.
func (s *savedSet) decodeHold(e lb.Endpoint, saved savedEndpointJSON) {
	if saved.Joined {
		if s.joined == nil {
			s.joined = map[place]bool{}
		}
		s.joined[placeOf(e)] = true
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
	host, port, err := net.SplitHostPort(e.Address)
	if err != nil {
		return lb.Endpoint{}, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return lb.Endpoint{}, err
	}
	// The same rules count as for what Consul sends.
	endpoint, err := endpointOf(&entry{Node: &entryNode{}, Service: &entryService{Address: host, Port: int(number)}})
	switch {
	case err != nil:
		return lb.Endpoint{}, err
	case e.ID == "" || e.Weight < 1 || e.Weight > maxWeight:
		return lb.Endpoint{}, errors.New("has no ID, or a weight that Consul does not allow")
	}
	endpoint.ID, endpoint.Weight = e.ID, e.Weight
	return endpoint, nil
}
