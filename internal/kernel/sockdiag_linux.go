//go:build amd64 || arm64

package kernel

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Constants of linux/inet_diag.h and linux/sock_diag.h.
const (
	diagBytecode    = 1      // INET_DIAG_REQ_BYTECODE
	diagStorages    = 2      // INET_DIAG_REQ_SK_BPF_STORAGES
	diagMapFD       = 1      // SK_DIAG_BPF_STORAGE_REQ_MAP_FD
	diagInfo        = 2      // INET_DIAG_INFO
	diagStored      = 20     // INET_DIAG_SK_BPF_STORAGES
	diagStorage     = 1      // SK_DIAG_BPF_STORAGE
	diagMapValue    = 3      // SK_DIAG_BPF_STORAGE_MAP_VALUE
	bytecodeJump    = 1      // INET_DIAG_BC_JMP
	bytecodePort    = 12     // INET_DIAG_BC_D_EQ
	attributeType   = 0x3fff // NLA_TYPE_MASK
	diagAllTCP      = 1<<unix.BPF_TCP_ESTABLISHED | 1<<unix.BPF_TCP_SYN_SENT | diagFinished
	diagFinished    = 1<<unix.BPF_TCP_FIN_WAIT1 | 1<<unix.BPF_TCP_FIN_WAIT2 | 1<<unix.BPF_TCP_CLOSE_WAIT | diagClosing
	diagClosing     = 1<<unix.BPF_TCP_LAST_ACK | 1<<unix.BPF_TCP_CLOSING
	diagAllUDP      = 1<<unix.BPF_TCP_ESTABLISHED | 1<<unix.BPF_TCP_CLOSE // connected, and not connected
	maxDiagPorts    = 64
	diagBufferBytes = 64 << 10

	// diagPatience limits how long the kernel may take for one message.
	diagPatience = 5 * time.Second
)

// A diagID is struct inet_diag_sockid. It is passed back to the kernel as it came.
type diagID struct {
	SourcePort, DestinationPort [2]byte
	Source, Destination         [16]byte
	Interface                   uint32
	Cookie                      [2]uint32
}

// A diagRequest is struct inet_diag_req_v2.
type diagRequest struct {
	Family, Protocol, Extensions, _ uint8
	States                          uint32
	ID                              diagID
}

// A diagMessage is struct inet_diag_msg.
type diagMessage struct {
	Family, State, Timer, Retransmits          uint8
	ID                                         diagID
	Expires, ReceiveQueue, SendQueue, UID, Ino uint32
}

// A diagSocket is a socket as the kernel describes it. What it stores for the programs is known only of TCP sockets.
type diagSocket struct {
	protocol uint8
	diagMessage
	stores bool
	stored programSocket
	info   unix.TCPInfo // of TCP
}

// cookie identifies the socket for as long as the host runs.
func (m *diagMessage) cookie() uint64 { return uint64(m.ID.Cookie[0]) | uint64(m.ID.Cookie[1])<<32 }

func (m *diagMessage) local() netip.AddrPort { return m.address(m.ID.Source, m.ID.SourcePort) }
func (m *diagMessage) peer() netip.AddrPort  { return m.address(m.ID.Destination, m.ID.DestinationPort) }

func (m *diagMessage) address(ip [16]byte, port [2]byte) netip.AddrPort {
	a := netip.AddrFrom16(ip).Unmap()
	if m.Family == unix.AF_INET {
		a = netip.AddrFrom4([4]byte(ip[:4]))
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port[:]))
}

// A sockDiag asks the kernel about sockets, see sock_diag(7). It is not safe for concurrent use.
type sockDiag struct {
	fd     int
	number uint32 // of the last request
	buf    []byte
}

func openSockDiag() (*sockDiag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	patience := unix.NsecToTimeval(diagPatience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return &sockDiag{fd: fd, buf: make([]byte, diagBufferBytes)}, nil
}

func (d *sockDiag) close() { _ = unix.Close(d.fd) }

// list calls each for the sockets of both families, with what TCP sockets store in the map, which is one of struct
// socket. The ports are those of peers; port 0 stands for sockets that are not connected. If there are too many, list
// lists all sockets. The kernel looks at a few sockets at a time, as it does for ss(8), so traffic does not wait.
func (d *sockDiag) list(ctx context.Context, protocol uint8, ports []uint16, mapFD int, each func(*diagSocket)) error {
	states := uint32(diagAllTCP)
	if protocol == unix.IPPROTO_UDP {
		states = diagAllUDP
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		r := diagRequest{Family: family, Protocol: protocol, States: states}
		if protocol == unix.IPPROTO_TCP {
			r.Extensions = 1 << (diagInfo - 1)
		}
		more := attribute(nil, diagStorages, attribute(nil, diagMapFD, bytesOf(&[1]uint32{uint32(mapFD)})))
		if len(ports) <= maxDiagPorts {
			more = attribute(more, diagBytecode, portFilter(ports))
		}
		if err := d.send(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, &r, more); err != nil {
			return err
		}
		if err := d.receiveAll(ctx, protocol, each); err != nil {
			return err
		}
	}
	return nil
}

// destroy ends a socket: its next calls fail with ECONNABORTED. A socket that has ended, or has another peer now, is no
// error.
func (d *sockDiag) destroy(protocol uint8, m *diagMessage) (done bool, err error) {
	r := diagRequest{Family: m.Family, Protocol: protocol, States: 1 << m.State, ID: m.ID}
	if err := d.send(unix.SOCK_DESTROY, unix.NLM_F_ACK, &r, nil); err != nil {
		return false, err
	}
	err = d.receiveAll(context.Background(), protocol, func(*diagSocket) {})
	if err == unix.ENOENT {
		return false, nil
	}
	return err == nil, err
}

// send sends a request.
func (d *sockDiag) send(kind, flags uint16, r *diagRequest, attributes []byte) error {
	d.number++
	h := unix.NlMsghdr{Type: kind, Flags: unix.NLM_F_REQUEST | flags, Seq: d.number,
		Len: uint32(unix.SizeofNlMsghdr + int(unsafe.Sizeof(*r)) + len(attributes))}
	message := append(append(append([]byte(nil), bytesOf(&h)...), bytesOf(r)...), attributes...)
	err := unix.Sendto(d.fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	return os.NewSyscallError("ask the kernel about sockets: sendto", err)
}

// receiveAll receives the answer to the last request. The error is a unix.Errno if it comes from the kernel's answer.
func (d *sockDiag) receiveAll(ctx context.Context, protocol uint8, each func(*diagSocket)) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, _, err := unix.Recvfrom(d.fd, d.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("ask the kernel about sockets: recvfrom", err)
		}
		if over, err := d.parse(d.buf[:n], protocol, each); over || err != nil {
			return err
		}
	}
}

// parse reads the messages of one datagram. It returns true after the last message of the answer.
func (d *sockDiag) parse(b []byte, protocol uint8, each func(*diagSocket)) (over bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		h := valueOf[unix.NlMsghdr](b)
		if h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(b) {
			return true, fmt.Errorf("a message of %d bytes about sockets is not complete", h.Len)
		}
		body := b[unix.SizeofNlMsghdr:h.Len]
		b = b[min(align4(int(h.Len)), len(b)):]
		switch {
		case h.Seq != d.number: // of an earlier request, which was not read to its end
		case h.Type == unix.NLMSG_DONE || h.Type == unix.NLMSG_ERROR:
			if len(body) >= 4 {
				if code := valueOf[int32](body); code < 0 {
					return true, unix.Errno(-code)
				}
			}
			return true, nil
		case len(body) >= int(unsafe.Sizeof(diagMessage{})):
			each(parseSocket(protocol, body))
		}
	}
	return false, nil
}

func parseSocket(protocol uint8, b []byte) *diagSocket {
	s := &diagSocket{protocol: protocol, diagMessage: valueOf[diagMessage](b)}
	eachAttribute(b[unsafe.Sizeof(diagMessage{}):], func(kind uint16, value []byte) {
		switch kind {
		case diagInfo: // older kernels know less than unix.TCPInfo
			copy(bytesOf(&s.info), value)
		case diagStored:
			eachAttribute(value, func(kind uint16, value []byte) {
				if kind == diagStorage {
					eachAttribute(value, s.parseStored)
				}
			})
		}
	})
	return s
}

func (s *diagSocket) parseStored(kind uint16, value []byte) {
	if kind == diagMapValue && len(value) >= int(unsafe.Sizeof(s.stored)) {
		s.stored, s.stores = valueOf[programSocket](value), true
	}
}

// portFilter returns a filter that selects sockets with one of the ports as that of their peer. The filter is a
// sequence of operations; each says how many bytes to go on from its start if it applies ("yes"), and if not ("no").
// The end of the sequence selects the socket, and four bytes after that reject it.
func portFilter(ports []uint16) (filter []byte) {
	const operation, test = 4, 8
	for i, port := range ports {
		rest := (len(ports) - i - 1) * (operation + test) // bytes after this test
		filter = append(filter, bytecodePort, test)
		filter = binary.NativeEndian.AppendUint16(filter, test+operation)
		filter = append(filter, 0, 0)
		filter = binary.NativeEndian.AppendUint16(filter, port)
		if rest > 0 {
			filter = append(filter, bytecodeJump, operation)
			filter = binary.NativeEndian.AppendUint16(filter, uint16(rest))
		}
	}
	return filter
}

// attribute appends an attribute to b.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = append(b, bytesOf(&unix.NlAttr{Len: uint16(unix.SizeofNlAttr + len(value)), Type: kind})...)
	b = append(b, value...)
	return append(b, make([]byte, align4(len(value))-len(value))...)
}

// eachAttribute calls f for the attributes in b.
func eachAttribute(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		a := valueOf[unix.NlAttr](b)
		if a.Len < unix.SizeofNlAttr || int(a.Len) > len(b) {
			return
		}
		f(a.Type&attributeType, b[unix.SizeofNlAttr:a.Len])
		b = b[min(align4(int(a.Len)), len(b)):]
	}
}

func align4(n int) int { return (n + 3) &^ 3 }

// bytesOf returns the memory of a structure of the kernel.
func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

// valueOf copies a structure of the kernel from b, which must be long enough.
func valueOf[T any](b []byte) (v T) {
	copy(bytesOf(&v), b)
	return v
}
