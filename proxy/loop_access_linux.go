package proxy

import "time"

// record tells whoever wants to know of the pair, which ends.
func (p *loopPair) record() {
	r := AccessRecord{Client: p.src, Duration: time.Duration(p.loop.now - p.began), Up: p.flows[clientSide].moved,
		Down: p.flows[serverSide].moved, Reason: p.reason.String()}
	if p.joined > 0 && p.endpoint != nil {
		r.Endpoint, r.Connect = p.endpoint.Endpoint, time.Duration(p.joined-p.began)
	} else if p.reason == notEnded {
		r.Reason = ReasonUnserved
	}
	if p.errno != 0 {
		r.Reason += ": " + p.errno.Error()
	}
	p.s.record(r)
}

// record tells whoever wants to know of the session, which ends.
func (x *loopSession) record(reason string) {
	x.s.record(AccessRecord{
		Client: clientOf(&x.clientName), Endpoint: x.endpoint.Endpoint,
		Duration: time.Duration(x.shard.loop.now - x.began), Reason: reason,
		Up: x.bytes[clientSide], Down: x.bytes[serverSide], DatagramsUp: x.sent, DatagramsDown: x.answers,
	})
}
