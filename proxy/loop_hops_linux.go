package proxy

// hopsOf returns the hops that datagrams from i on are to take along; 0 if the socket gives them those that they are to
// have. It returns false if they have none left.
func (x *loopSession) hopsOf(in *batch, i int16) (hops uint8, left bool) {
	if x.holding != nil {
		if hops = x.hops; hops == 0 {
			return 0, true
		}
	} else { // its socket is that of others too
		hops = in.hopsFrom(i)
		if hops <= 1 {
			return 0, hops == 0
		}
		if hops--; hops == x.out.hops {
			return 0, true
		}
	}
	if x.shard.loop.udp.hopsRefused || x.holding != nil && x.sent > 0 {
		x.settle(hops)
		return 0, true
	}
	return hops, true
}

// settle has the session's socket give all datagrams from now on so many hops; 0 changes nothing.
func (x *loopSession) settle(hops uint8) {
	x.hops = 0
	if hops == 0 {
		return
	}
	setHops(x.fd, x.six, hops)
	if x.out != nil {
		x.out.hops = hops
	}
}

// refuseHops is told that the kernel does not take hops along with the datagrams that are being sent.
func (x *loopSession) refuseHops(hops uint8) {
	u := x.shard.loop.udp
	u.hopsRefused = true
	u.up.dropHops()
	x.settle(hops)
}
