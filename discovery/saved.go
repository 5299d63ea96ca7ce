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

	"github.com/lictor-proxy/lictor/lb"
)

// A savedSet is the set of one query as it was when it last changed.
type savedSet struct {
	query     string // key of the query
	changed   time.Time
	endpoints []lb.Endpoint
}

// savedVersion is the version of the format: a line with a mark, the version and the checksum of everything after it; then JSON.
const savedVersion = 1

const savedMark = "lictor-endpoints"

var (
	errForeign = errors.New("not a file of saved endpoints")
	errDamaged = errors.New("damaged: the checksum does not match")
)

// The JSON of a file.
type savedJSON struct {
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
}

// encodeSaved returns the file of sets.
func encodeSaved(sets []savedSet) ([]byte, error) {
	file := savedJSON{Sets: make([]savedSetJSON, 0, len(sets))}
	for _, s := range sets {
		one := savedSetJSON{Query: s.query, Changed: s.changed, Endpoints: make([]savedEndpointJSON, 0, len(s.endpoints))}
		for _, e := range s.endpoints {
			one.Endpoints = append(one.Endpoints, savedEndpointJSON{ID: e.ID, Address: e.Address(), Weight: e.Weight})
		}
		file.Sets = append(file.Sets, one)
	}
	body, err := json.Marshal(file)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "%s %d %x\n", savedMark, savedVersion, sha256.Sum256(body)), body...), nil
}

// decodeSaved reads a file back. Whoever wrote it, and whatever happened to it since, nothing is returned that could not have come
// from Consul: an error, or sets that are fit to be served.
func decodeSaved(file []byte) ([]savedSet, error) {
	head, body, found := bytes.Cut(file, []byte("\n"))
	fields := bytes.Fields(head)
	if !found || len(fields) < 2 || string(fields[0]) != savedMark {
		return nil, errForeign
	}
	version, err := strconv.Atoi(string(fields[1]))
	switch {
	case err != nil || version < 1:
		return nil, errForeign
	case version != savedVersion:
		return nil, fmt.Errorf("of version %d, this lictor reads version %d", version, savedVersion)
	case len(fields) != 3 || string(fields[2]) != fmt.Sprintf("%x", sha256.Sum256(body)):
		return nil, errDamaged
	}
	var content savedJSON
	if err := json.Unmarshal(body, &content); err != nil {
		return nil, fmt.Errorf("%w: %w", errForeign, err)
	}
	return decodeSets(content)
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
			if len(e.ID) > maxID { // of an earlier version, which allowed that
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
		}
		sets = append(sets, s)
	}
	return sets, nil
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
	// Held to the same rules as what Consul sends.
	endpoint, err := endpointOf(&entry{Node: &node{}, Service: &service{Address: host, Port: int(number)}})
	switch {
	case err != nil:
		return lb.Endpoint{}, err
	case e.ID == "" || e.Weight < 1 || e.Weight > maxWeight:
		return lb.Endpoint{}, errors.New("has no ID, or a weight that Consul does not allow")
	}
	endpoint.ID, endpoint.Weight = e.ID, e.Weight
	return endpoint, nil
}
