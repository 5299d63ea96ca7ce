package proxy

import (
	"net/netip"
	"syscall"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/proxy/internal/batch"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file has the PROXY headers of the loops' UDP sessions.

// A Batch has room for every header.
const _ = uint(batch.Headroom - proxyproto.MaxHeader)

// hear returns the PROXY header of datagram i, and removes it from the datagram. The result is valid until the next
// call. It is nil if the datagram must be dropped, which has been recorded.
func (h *udpShard) hear(s *service, in *batch.Batch, i int) *proxyproto.Header {
	if in.Segment(i) > 0 { // the kernel has joined datagrams before the service accepted headers
		return nil
	}
	size, ok := s.hearDatagram(&h.heard, clientOf(&in.Names[i]), in.Payload(i))
	if !ok {
		return nil
	}
	in.Strip(i, size)
	return &h.heard
}

// client returns the session's client.
func (x *loopSession) client() netip.AddrPort { return x.headers.client(clientOf(&x.clientName)) }

// hop returns what the loop knows of the session's client.
func (x *loopSession) hop() hop {
	var local netip.Addr
	if x.key.Local != (sys.Source{}) {
		local = netip.AddrFrom16(x.key.Local)
	}
	return hop{client: clientOf(&x.clientName), server: listenedAt(x.shard.socket.addr, local),
		id: x.serial<<8 | uint64(uint8(x.shard.loop.id)), udp: true}
}

// sendWithHeaders is sendAll for a session with headers. It sends the first datagram by itself if only that has a
// header.
func (x *loopSession) sendWithHeaders(in *batch.Batch, i int16) (int16, syscall.Errno) {
	for i >= 0 && x.headers.use.first && x.headers.front != nil {
		next, sent := in.Next[i], x.sent
		in.Next[i] = -1
		refused, err := x.sendEach(in, i)
		in.Next[i] = next
		if refused >= 0 {
			return i, err
		}
		if x.sent > sent {
			x.headers.delivered()
		}
		i = next
	}
	switch {
	case i < 0:
		return -1, 0
	case x.headers.front == nil:
		return x.sendAll(in, i, 0)
	}
	return x.sendEach(in, i)
}

// sendEach sends the datagrams from place i on, each with the header. Those that the endpoint refuses, and all behind,
// lose the header again, because another session needs another one.
func (x *loopSession) sendEach(in *batch.Batch, i int16) (int16, syscall.Errno) {
	front := x.headers.front
	if i = x.withoutJoined(in, i); i < 0 {
		return -1, 0
	}
	for at := i; at >= 0; at = in.Next[at] {
		in.Prepend(int(at), front)
	}
	refused, err := x.sendAll(in, i, len(front))
	for at := refused; at >= 0; at = in.Next[at] {
		in.Strip(int(at), len(front))
	}
	return refused, err
}

// withoutJoined drops the datagrams that the kernel has joined, and returns the place of the first one that is left.
// The kernel joins none for a service with headers, but a few may have arrived before the service became one.
func (x *loopSession) withoutJoined(in *batch.Batch, i int16) (first int16) {
	first = -1
	link := &first
	for ; i >= 0; i = in.Next[i] {
		if in.Segment(int(i)) > 0 {
			x.s.at(x.shard.loop.id).datagramsDropped.Add(int64(in.Count(int(i))))
			continue
		}
		*link, link = i, &in.Next[i]
	}
	*link = -1
	return first
}
