// Package batch receives and sends many UDP datagrams at a time.
//
// The call recvmmsg(2) receives all datagrams that have arrived, sendmmsg(2) sends many. In addition, the kernel can
// join incoming datagrams of one flow and equal size (UDP_GRO), and cut a large outgoing message into datagrams
// (UDP_SEGMENT). A joined or cut datagram costs a fraction of one sent alone. See udp(7), and "Optimizing UDP for
// content delivery: GSO, pacing and zerocopy" (de Bruijn and Dumazet, 2018).
//
// A loop that forwards datagrams from one socket to another, connected socket has a Batch and a Sender:
//
//	in, out := batch.New(denied), batch.Sender{Denied: denied}
//	n, err := in.Receive(from, 0, batch.Size)
//	out.Clear()
//	for i := range n {
//		out.Add(batch.Parcel{Base: in.Base(i), Size: in.Len(i), Segment: in.Segment(i), Plain: &plain})
//	}
//	for out.More() {
//		if _, err := out.Send(to); err != 0 {
//			lost += out.Skip()
//		}
//	}
//
// A Batch also holds each datagram's sender, its local address, and the hops that it had left. The local address and
// the hops are known only if the socket asks the kernel for them (sys.WantLocal, sys.WantHops). A Parcel may set its
// destination, its local address, and its hops.
//
// Only New allocates, and no function waits. If the system denies a call, another call takes its place; see
// sys.Denials. The package is for Linux; on other systems it has only Introduction.
package batch

import (
	"net/netip"
	"unique"
)

// An Introduction is what the PROXY header of a datagram says. The addresses are invalid if the header names no client.
type Introduction struct {
	Client netip.AddrPort
	Server netip.AddrPort // the address that the client has used
}

// An Introduced is an Introduction that can be compared and hashed by its address. The zero Introduced stands for a
// datagram without a header.
type Introduced = unique.Handle[Introduction]
