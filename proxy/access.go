package proxy

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// An AccessRecord is what there is to say of a TCP connection that has ended.
type AccessRecord struct {
	Service  string
	Client   netip.AddrPort
	Endpoint lb.Endpoint   // zero: none was reached
	Ended    time.Time     // when
	Connect  time.Duration // from the client's arrival until the endpoint was reached, others tried in vain included; zero: none was
	Duration time.Duration // in all
	Up, Down int64         // bytes
	Reason   string        // of the end, see the constants; or one of these, a colon and an error
}

// Reasons for the end of a connection: who ended it first, and whether properly.
const (
	ReasonUnserved       = "unserved" // no endpoint was reached
	ReasonClientClosed   = "client closed"
	ReasonEndpointClosed = "endpoint closed"
	ReasonClientFailed   = "client failed" // mostly by a reset
	ReasonEndpointFailed = "endpoint failed"
	ReasonIdle           = "idle"
	ReasonCut            = "cut" // by a shutdown
)

// unservedReason is the reason of the end of a connection for which dialling ended with err.
func unservedReason(err error) string {
	switch {
	case err == errHungUp:
		return ReasonClientClosed
	case errors.Is(err, context.Canceled):
		return ReasonCut
	}
	return ReasonUnserved
}

// record fills in what a connection's engine does not know of the service, and hands it on.
func (s *service) record(r AccessRecord) {
	r.Service, r.Ended = s.name(), time.Now()
	if r.Reason == "" {
		r.Reason = ReasonCut
	}
	s.access(r)
}
