package proxy

// Add adds the counters of other to those of s. What is open now is left out: ConnectionsActive, SessionsActive and
// Descriptors. So are Handshakes if s has none. Add is for the counters of processes that have served before this one.
func (s *Stats) Add(other *Stats) {
	s.Connections += other.Connections
	s.DialsFailed += other.DialsFailed
	s.Refused += other.Refused
	s.EndedLeft += other.EndedLeft
	s.EndedAged += other.EndedAged
	s.EndedIntention += other.EndedIntention
	s.Retries += other.Retries
	s.DescriptorWaits += other.DescriptorWaits
	s.BytesUp += other.BytesUp
	s.BytesDown += other.BytesDown
	s.Sessions += other.Sessions
	s.SessionsEvicted += other.SessionsEvicted
	s.DatagramsUp += other.DatagramsUp
	s.DatagramsDown += other.DatagramsDown
	s.DatagramsDropped += other.DatagramsDropped
	s.DatagramsOverrun += other.DatagramsOverrun
	addEach(s.Dials.Buckets[:], other.Dials.Buckets[:])
	s.Dials.Sum += other.Dials.Sum
	addEach(s.DialsFailedBy[:], other.DialsFailedBy[:])
	addEach(s.RefusedBy[:], other.RefusedBy[:])
	if h, more := s.Handshakes, other.Handshakes; h != nil && more != nil {
		h.Full += more.Full
		h.Resumed += more.Resumed
		h.Time += more.Time
		addEach(h.FailedBy[:], more.FailedBy[:])
	}
}

// addEach adds each element of more to the one in sum.
func addEach(sum, more []int64) {
	for i := range sum {
		sum[i] += more[i]
	}
}
