package proxy

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// endReason is why a connection or a session has ended. String returns its text in an AccessRecord.
type endReason int8

const (
	notEnded endReason = iota

	// closedBy and failedBy add a side to the first constant of each of these two pairs.
	clientClosed
	serverClosed

	clientFailed
	serverFailed

	endIdle
	endLeft
	endAged
	endCut
	endAnswered
	endSent
	endEvicted
	endRefused
	endReplaced
	endDrained
	endEjected
	endForbidden
	endIntention

	// endHanded is why a session ends that goes on in another process. A session that ends for endHanded makes no
	// record, because the other process records the whole session.
	endHanded

	// unservedFor adds a Refusal to endUnserved, which is therefore the last constant.
	endUnserved
)

var endTexts = [...]string{
	notEnded:     "",
	clientClosed: ReasonClientClosed,
	serverClosed: ReasonEndpointClosed,
	clientFailed: ReasonClientFailed,
	serverFailed: ReasonEndpointFailed,
	endIdle:      ReasonIdle,
	endLeft:      ReasonEndpointLeft,
	endAged:      ReasonAge,
	endCut:       ReasonCut,
	endAnswered:  ReasonAnswered,
	endSent:      ReasonSent,
	endEvicted:   ReasonEvicted,
	endRefused:   ReasonEndpointRefused,
	endReplaced:  ReasonReplaced,
	endDrained:   ReasonDrained,
	endEjected:   ReasonEndpointEjected,
	endForbidden: ReasonNotAllowed,
	endIntention: ReasonIntention,
	endHanded:    "",
}

func (r endReason) String() string {
	switch {
	case r == unservedFor(RefusedPerClient):
		return ReasonPerClient
	case r == unservedFor(RefusedPerIdentity):
		return ReasonPerIdentity
	case r == unservedFor(RefusedNotAllowed):
		return ReasonNotAllowed
	case r == unservedFor(RefusedDenied):
		return ReasonDenied
	case r == unservedFor(RefusedIntention):
		return ReasonIntention
	case r.isUnserved():
		return ReasonUnserved
	}
	return endTexts[r]
}

// unservedFor returns why a connection ends whose client got no endpoint because of why.
func unservedFor(why Refusal) endReason { return endUnserved + endReason(why) }

// isUnserved reports whether the client got no endpoint and counts as refused.
func (r endReason) isUnserved() bool { return r >= endUnserved }

// refused returns the word for the Refusal in r, or an empty text if r has none.
func (r endReason) refused() string {
	if !r.isUnserved() {
		return ""
	}
	return Refusal(r - endUnserved).String()
}

// closedBy and failedBy return the reason if the peer on the given side was the first to close or to fail.
func closedBy(side int) endReason { return clientClosed + endReason(side) }
func failedBy(side int) endReason { return clientFailed + endReason(side) }

// A clientError ends the search for an endpoint because the client has gone. cause is nil if the client has closed its
// side, or the system's error if the connection has failed.
type clientError struct{ cause error }

func (e *clientError) Error() string { return "the client has gone" }

// endOf returns why a client's connection ends after its search for an endpoint has ended with err. cause is the
// system's error, or why the client is refused because of its identity, or nil.
func endOf(err error) (why endReason, cause error) {
	var gone *clientError
	var reset *forbiddenError
	switch {
	case errors.As(err, &reset):
		return endIntention, reset.why
	case errors.As(err, &gone) && gone.cause != nil:
		return clientFailed, gone.cause
	case gone != nil:
		return clientClosed, nil
	case errors.Is(err, context.Canceled):
		return endCut, nil
	}
	if e := identityErrorIn(err); e != nil {
		cause = e.why
	}
	return unservedFor(refusalOf(err)), cause
}

// rootOf returns the system's error in err, or err if there is none. rootOf turns EPIPE into ECONNRESET: the system
// reports a reset once, and all later writes fail with EPIPE.
func rootOf(err error) error {
	var errno syscall.Errno
	switch {
	case !errors.As(err, &errno):
		return err
	case errno == syscall.EPIPE:
		return syscall.ECONNRESET
	}
	return errno
}

// A report is what an engine knows of a connection or a session that has ended.
type report struct {
	client   netip.AddrPort
	listener lb.Addr
	endpoint *lb.Member    // nil if no endpoint was reached
	age      time.Duration // time since the connection or session began
	dialTime time.Duration // time until the endpoint was reached; TCP only
	up, down int64         // bytes to the endpoint and from the endpoint

	tls *TLSPeer // what the TLS handshake with the client has shown; nil if there was none

	datagramsUp, datagramsDown int64
}

// observed reports whether the access log or the debug log wants to know how a connection or a session ends.
func (s *service) observed() bool { return s.access.wanted() || s.log.IsDebug() }

// ended tells the access log and the debug log that a connection or a session has ended. cause is the error of a
// failure, or nil.
func (s *service) ended(r *report, why endReason, cause error) {
	if why == endHanded {
		return
	}
	if cause != nil {
		cause = rootOf(cause)
	}
	spec := s.spec.Load()
	var endpoint lb.Endpoint
	if r.endpoint != nil {
		endpoint = r.endpoint.Endpoint
	}
	if s.log.IsDebug() {
		address := ""
		if r.endpoint != nil {
			address = endpoint.Address()
		}
		args := []any{"client", clientName(r.client), "endpoint", address, "up", r.up, "down", r.down, "took", r.age,
			"reason", why.String()}
		if cause != nil {
			args = append(args, "error", cause)
		}
		if why.isUnserved() {
			args = append(args, "refused", why.refused())
		}
		message := "closed"
		if spec.Protocol == UDP {
			message, args = "session ended", append(args, "datagrams", r.datagramsUp, "answers", r.datagramsDown)
		}
		s.log.Debug(message, args...)
	}
	if to := s.access.to.Load(); to != nil {
		(*to)(AccessRecord{
			Service: spec.Name, Protocol: spec.Protocol, Listener: r.listener, Client: r.client, Endpoint: endpoint,
			Ended: time.Now(), Connect: r.dialTime, Duration: r.age, Up: r.up, Down: r.down,
			Reason: why.String(), Refused: why.refused(), Err: cause, TLS: r.tls,
			DatagramsUp: r.datagramsUp, DatagramsDown: r.datagramsDown,
		})
	}
}
