package main

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// idle returns a load of idle connections, each after one answer. It measures their memory and descriptors.
func idle(pairs func() int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		n := pairs()
		p, err := b.plan(backendCount, webs(1)...)
		if err != nil {
			return nil, err
		}
		p.Pairs = n + 100
		i, err := b.launch(t, p)
		if err != nil {
			return nil, err
		}
		defer b.stop(i)
		// The first connections allocate memory that later ones share. Open some before the measurement.
		warm, err := open(i.addrs(), 32)
		if err != nil {
			return nil, err
		}
		defer closeAll(warm)
		time.Sleep(settles)
		before, err := usageOf(i.group())
		if err != nil {
			return nil, err
		}
		fds, err := open(i.addrs(), n)
		if err != nil {
			return nil, err
		}
		defer closeAll(fds)
		return b.rest(i, before, n)
	}
}

// settles is how long a proxy that has become idle may take to give memory back.
const settles = 5 * time.Second

// rest measures a proxy that has n idle pairs more than at the measurement before.
func (b *bench) rest(i *instance, before usage, n int) (sample, error) {
	time.Sleep(settles)
	after, err := usageOf(i.group())
	if err != nil {
		return nil, err
	}
	began := time.Now()
	time.Sleep(b.pause())
	later, err := usageOf(i.group())
	if err != nil {
		return nil, err
	}
	return sample{
		mPairs:   float64(n),
		mPairRSS: float64(after.rss-before.rss) / float64(n),
		mPairPSS: float64(after.pss-before.pss) / float64(n),
		mPairFDs: float64(after.fds-before.fds) / float64(n),
		mIdleCPU: micros(later.cpu-after.cpu) / time.Since(began).Seconds(),
		mRSS:     float64(after.rss),
		mPSS:     float64(after.pss),
		mFDs:     float64(after.fds),
		mThreads: float64(after.threads),
	}, nil
}

// startServices returns a load that starts a proxy with n services and waits until all listeners are open.
func startServices(n int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		p, err := b.plan(backendCount, webs(n)...)
		if err != nil {
			return nil, err
		}
		wanted := map[netip.AddrPort]bool{}
		for _, s := range p.Services {
			wanted[s.Listen] = true
		}
		i, err := b.begin(t, p)
		if err != nil {
			return nil, err
		}
		defer b.stop(i)
		for {
			if !i.process.Running() {
				return nil, fmt.Errorf("it ended: %s", i.log.Tail(5))
			}
			open, err := listeners(wanted)
			if err != nil {
				return nil, err
			}
			if open == n {
				break
			}
			if time.Since(i.exec) > measureLimit {
				return nil, fmt.Errorf("%d of %d listeners are open after %v", open, n, measureLimit)
			}
			time.Sleep(2 * time.Millisecond)
		}
		took := time.Since(i.exec)
		if err := i.ready(); err != nil {
			return nil, err
		}
		time.Sleep(b.pause())
		u, err := usageOf(i.group())
		return sample{mOpen: micros(took), mRSS: float64(u.rss), mPSS: float64(u.pss), mFDs: float64(u.fds),
			mThreads: float64(u.threads)}, err
	}
}

// listeners returns how many of the wanted addresses have a listener.
func listeners(wanted map[netip.AddrPort]bool) (int, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	seen := map[netip.AddrPort]bool{} // nginx may have several listeners on one address
	lines := bufio.NewScanner(f)
	lines.Scan() // headings
	for lines.Scan() {
		addr, listening := parseListener(lines.Text())
		if !listening {
			break // the kernel lists listeners first
		}
		if wanted[addr] {
			seen[addr] = true
		}
	}
	return len(seen), lines.Err()
}

// parseListener returns the local address in a line of /proc/net/tcp, and whether it is a listener's.
func parseListener(line string) (addr netip.AddrPort, listening bool) {
	fields := strings.Fields(line)
	const listen = "0A"
	if len(fields) < 4 || fields[3] != listen {
		return addr, false
	}
	ip, port, ok := strings.Cut(fields[1], ":")
	a, err := strconv.ParseUint(ip, 16, 32)
	p, err2 := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || err2 != nil {
		return addr, false
	}
	// The kernel prints the address as a number in the machine's byte order. The machines that run this are
	// little-endian.
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(a), byte(a >> 8), byte(a >> 16), byte(a >> 24)}),
		uint16(p)), true
}
