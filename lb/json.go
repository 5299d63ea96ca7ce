package lb

import (
	"encoding/json"
	"net/netip"
)

// endpointJSON is the JSON form of an Endpoint. endpointJSON has separate fields for the IP address and the port of
// Addr: if an Endpoint has a Host, Addr has no IP address, and the text of such an AddrPort would lose the port.
type endpointJSON struct {
	ID     string     `json:"id"`
	Host   string     `json:"host,omitempty"`
	Path   string     `json:"path,omitempty"`
	IP     netip.Addr `json:"ip"`
	Port   uint16     `json:"port"`
	Weight int        `json:"weight,omitempty"`
	Name   string     `json:"server_name,omitempty"`
	Who    string     `json:"identity,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (e Endpoint) MarshalJSON() ([]byte, error) {
	return json.Marshal(endpointJSON{e.ID, e.Host, e.Path, e.Addr.Addr(), e.Addr.Port(), e.Weight, e.ServerName,
		e.Identity})
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *Endpoint) UnmarshalJSON(text []byte) error {
	var v endpointJSON
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	*e = Endpoint{ID: v.ID, Host: v.Host, Path: v.Path, Addr: netip.AddrPortFrom(v.IP, v.Port), Weight: v.Weight,
		ServerName: v.Name, Identity: v.Who}
	return nil
}
