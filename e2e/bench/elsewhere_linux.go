package main

import (
	"errors"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A stranger does something with sockets that no service of Lictor has to do with. Both ends are in this process.
type stranger interface {
	// open opens the sockets that stay.
	open() error
	// unit does one unit of work.
	unit() error
	close()
}

// elsewhere returns a load that measures what a kernel path adds to each unit of a stranger's work, while Lictor has
// 1,000 TCP services on it, and one for UDP if it can. The stranger works in the control group and outside of it by
// turns, a block of units each time. The result is the difference of the lower quartiles, because disturbances only add
// to a block.
func elsewhere(work int, stranger func() stranger) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		services := webs(1000)
		if t.udp {
			services = append(services, service{Name: udpService, Protocol: "udp"})
		}
		p, err := b.plan(backendCount, services...)
		if err != nil {
			return nil, err
		}
		i, err := b.launch(t, p)
		if err != nil {
			return nil, err
		}
		defer b.stop(i)
		inside, outside := stranger(), stranger()
		defer inside.close()
		defer outside.close()
		_, err = b.as(t, func() (sample, error) { return nil, inside.open() })
		if err := errors.Join(err, outside.open()); err != nil {
			return nil, err
		}
		const blocks = 40
		var inner, outer []float64
		for range blocks {
			with, err := b.as(t, func() (sample, error) { return unitsOf(inside, b.scaled(work)/blocks) })
			if err != nil {
				return nil, err
			}
			without, err := unitsOf(outside, b.scaled(work)/blocks)
			if err != nil {
				return nil, err
			}
			inner, outer = append(inner, with[mAdded]), append(outer, without[mAdded])
		}
		return sample{mAdded: quartile(inner) - quartile(outer)}, nil
	}
}

// unitsOf measures the processor time of a unit. All work for sockets on loopback is done by the thread that sends.
func unitsOf(s stranger, n int) (sample, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range n / 10 { // after the change of the control group
		if err := s.unit(); err != nil {
			return nil, err
		}
	}
	before, err := ownThreadTime()
	if err != nil {
		return nil, err
	}
	for range n {
		if err := s.unit(); err != nil {
			return nil, err
		}
	}
	after, err := ownThreadTime()
	return sample{mAdded: micros(after-before) / float64(n)}, err
}

func ownThreadTime() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano()), err
}

// A connector connects to a listener, accepts the connection, and closes both ends. Destinations change, so that closed
// connections that the kernel remembers do not use up the ports of one.
type connector struct {
	listener int
	port     int
	turn     byte
}

func (c *connector) open() (err error) {
	c.listener, c.port, err = boundSocket(unix.SOCK_STREAM)
	if err == nil {
		err = unix.Listen(c.listener, 16)
	}
	return err
}

func (c *connector) close() { unix.Close(c.listener) }

func (c *connector) unit() error {
	c.turn++
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 2 + c.turn%sources}, Port: c.port}
	if err := unix.Connect(client, to); err != nil {
		return err
	}
	server, _, err := unix.Accept4(c.listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(server)
}

// A sender sends a datagram to another socket, which reads it. Neither is connected.
type sender struct {
	from, to int
	addr     *unix.SockaddrInet4
	buf      [messageSize]byte
}

func (s *sender) open() (err error) {
	var port int
	if s.to, port, err = boundSocket(unix.SOCK_DGRAM); err != nil {
		return err
	}
	s.addr = &unix.SockaddrInet4{Addr: netip.MustParseAddr("127.0.0.1").As4(), Port: port}
	s.from, _, err = boundSocket(unix.SOCK_DGRAM)
	return err
}

func (s *sender) close() {
	unix.Close(s.from)
	unix.Close(s.to)
}

func (s *sender) unit() error {
	if err := unix.Sendto(s.from, s.buf[:], 0, s.addr); err != nil {
		return err
	}
	_, _, err := unix.Recvfrom(s.to, s.buf[:], 0)
	return err
}

// boundSocket opens a socket at a free port of all loopback addresses.
func boundSocket(kind int) (fd, port int, err error) {
	if fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, 0, err
	}
	var at unix.Sockaddr
	if err = unix.BindToDevice(fd, "lo"); err == nil {
		if err = unix.Bind(fd, &unix.SockaddrInet4{}); err == nil {
			at, err = unix.Getsockname(fd)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, at.(*unix.SockaddrInet4).Port, nil
}
