// Package batch receives and sends UDP datagrams many at a time.
//
// recvmmsg(2) takes what has come, sendmmsg(2) sends what is to go. Beyond that, the kernel can join datagrams of one
// flow and equal size into one for the way in (UDP_GRO), and take one and cut it into datagrams on the way out
// (UDP_SEGMENT). Each of these then costs a fraction of one sent by itself: see udp(7), and "Optimizing UDP for content
// delivery: GSO, pacing and zerocopy" (de Bruijn and Dumazet, 2018).
//
// A loop that sends on what has come to one socket, to where another socket is connected, has a Batch and a Sender:
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
// A Batch also tells of each datagram who sent it, to which address of this host it came, and how many hops it had
// left. It does so as far as the socket asks the kernel for that (sys.WantLocal, sys.WantHops). A Parcel may say where
// it goes, where it leaves from, and how many hops it has.
//
// Nothing here waits or allocates, but for New. Where the system denies a call, datagrams go by another one, see
// sys.Denials. The package is for Linux; elsewhere it is empty.
package batch
