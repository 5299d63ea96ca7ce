package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// messageSize is the size of requests, answers and commands, in bytes. A message begins with an operation (1 byte) and
// a size (8 bytes).
const messageSize = 64

// Operations of a message.
const (
	opEcho  = 'E' // answer with the same bytes
	opBlock = 'B' // TCP: read size more bytes, then answer with all
	opUp    = 'U' // TCP: read size bytes, then answer
	opDown  = 'D' // TCP: send size bytes
	opCount = 'C' // TCP: answer with the number of datagrams received
	opSink  = 'S' // UDP: no answer
	opAck   = 'A' // UDP: answer with the first messageSize bytes
)

func message(op byte, size int64) []byte {
	b := make([]byte, messageSize)
	b[0] = op
	binary.BigEndian.PutUint64(b[1:], uint64(size))
	return b
}

// sizeIn returns the size in a message.
func sizeIn(b []byte) int64 { return int64(binary.BigEndian.Uint64(b[1:])) }

// A backend serves endpoints: TCP on its port of every loopback address, UDP on the same port of 127.0.0.1, and a Unix
// socket.
type backend struct {
	datagrams atomic.Int64
}

// serveBackend is the main function of a backend's process. It creates a Unix socket at path, and prints its port. If
// there are args, those of mesh.args, it also serves with the TLS of the mesh, and prints the port of that, too.
func serveBackend(path string, args []string) error {
	b := &backend{}
	l, conn, err := listenBackend()
	if err != nil {
		return err
	}
	local, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	all := []net.Listener{l, local}
	if len(args) > 0 {
		secure, err := listenMesh(args)
		if err != nil {
			return err
		}
		all = append(all, secure)
		fmt.Print(secure.Addr().(*net.TCPAddr).Port, " ")
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	go b.serveUDP(conn)
	failed := make(chan error)
	for _, l := range all {
		go func() { failed <- b.serveAll(l) }()
	}
	return <-failed
}

// serveAll serves the clients of l. It returns the error that ends l.
func (b *backend) serveAll(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go b.serve(c)
	}
}

// listenBackend listens on the loopback device. Each loopback address is then an endpoint, and no other host can
// connect.
func listenBackend() (net.Listener, *net.UDPConn, error) {
	control := func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "lo") }), err)
	}
	var last error
	for range 16 { // the TCP port may be in use for UDP
		l, err := (&net.ListenConfig{Control: control}).Listen(context.Background(), "tcp4", "0.0.0.0:0")
		if err != nil {
			return nil, nil, err
		}
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: l.Addr().(*net.TCPAddr).Port})
		if err == nil {
			conn.SetReadBuffer(4 << 20) // best effort
			return l, conn, nil
		}
		_ = l.Close()
		last = err
	}
	return nil, nil, last
}

func (b *backend) serve(c net.Conn) {
	defer c.Close()
	request := make([]byte, messageSize)
	for {
		if _, err := io.ReadFull(c, request); err != nil {
			return // the client has closed or reset the connection; both are usual here
		}
		if size := openingSize(request); size > 0 && skip(c, request, size) != nil {
			return
		}
		if err := b.do(c, request); err != nil {
			return
		}
	}
}

// recordHeader is the size of the header of a TLS record.
const recordHeader = 5

// recordSize returns the size of the TLS record that begins with b.
func recordSize(b []byte) int { return recordHeader + int(binary.BigEndian.Uint16(b[3:])) }

// openingSize returns the size of what comes before a request: a PROXY header of version 2, or a TLS record.
func openingSize(request []byte) int {
	switch request[0] {
	case '\r':
		return 16 + int(binary.BigEndian.Uint16(request[14:]))
	case 22:
		return recordSize(request)
	}
	return 0
}

// skip completes a request that begins with size bytes of an opening, and removes these.
func skip(c io.Reader, request []byte, size int) error {
	all := append(make([]byte, 0, size+len(request)), request...)
	all = all[:size+len(request)]
	_, err := io.ReadFull(c, all[len(request):])
	copy(request, all[size:])
	return err
}

func (b *backend) do(c net.Conn, request []byte) error {
	size := sizeIn(request)
	switch request[0] {
	case opBlock:
		all := append(request[:len(request):len(request)], make([]byte, size)...)
		if _, err := io.ReadFull(c, all[len(request):]); err != nil {
			return err
		}
		request = all
	case opUp:
		buf := make([]byte, bulkBuffer)
		for size > 0 {
			n, err := c.Read(buf[:min(size, bulkBuffer)])
			if err != nil {
				return err
			}
			size -= int64(n)
		}
	case opDown:
		buf := make([]byte, bulkBuffer)
		for size > 0 {
			n, err := c.Write(buf[:min(size, bulkBuffer)])
			if err != nil {
				return err
			}
			size -= int64(n)
		}
		return nil
	case opCount:
		request = message(opCount, b.datagrams.Load())
	}
	_, err := c.Write(request)
	return err
}

func (b *backend) serveUDP(c *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		n, client, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // a client that is gone refuses its answer; go on with the next datagram
		}
		b.datagrams.Add(1)
		if n > 0 && buf[0] != opSink {
			_, _ = c.WriteToUDPAddrPort(buf[:min(n, messageSize)], client) // UDP may lose the answer
		}
	}
}

// backends are the processes that serve endpoints.
type backends struct {
	processes []*testproc.Process
	ports     []int
	meshPorts []int    // with the TLS of the mesh; none without a mesh
	paths     []string // of the Unix sockets
}

// backendCount is the default number of endpoints of a service, as in the measurements of the design.
const backendCount = 4

// startBackends starts backends whose Unix sockets are in the folder dir. A nil m means no mesh.
func startBackends(pins pinning, dir string, m *mesh) (*backends, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &backends{}
	for i := range backendCount {
		// Each backend gets at most a quarter of the connections. More than one thread would only compete with the
		// proxy.
		path := filepath.Join(dir, fmt.Sprintf("backend%d.sock", i))
		cmd := exec.Command(self, append([]string{"backend", path}, m.args()...)...)
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.stop()
			return nil, err
		}
		p, err := pins.start(cmd, pins.rest)
		if err != nil {
			b.stop()
			return nil, err
		}
		b.processes = append(b.processes, p)
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			b.stop()
			return nil, fmt.Errorf("a backend does not start: %w", err)
		}
		if err := b.note(path, strings.Fields(line)); err != nil {
			b.stop()
			return nil, fmt.Errorf("a backend says %q: %w", line, err)
		}
	}
	return b, nil
}

// note keeps what a backend has printed: its ports, of which the last is the one without TLS.
func (b *backends) note(path string, ports []string) error {
	for n, text := range ports {
		port, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		if n == len(ports)-1 {
			b.ports, b.paths = append(b.ports, port), append(b.paths, path)
		} else {
			b.meshPorts = append(b.meshPorts, port)
		}
	}
	return nil
}

func (b *backends) stop() {
	for _, p := range b.processes {
		p.Kill()
	}
}

// meshEndpoints returns the addresses with the TLS of the mesh.
func (b *backends) meshEndpoints() []string {
	var all []string
	for _, port := range b.meshPorts {
		all = append(all, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
	return all
}

// endpoints returns n addresses, spread evenly over the backends. UDP has at most backendCount.
func (b *backends) endpoints(n int) []string {
	var all []string
	for i := range n {
		host := i / backendCount // 127.0.0.1, then 127.1.x.y
		addr := "127.0.0.1"
		if host > 0 {
			addr = fmt.Sprintf("127.1.%d.%d", host/250, 1+host%250)
		}
		all = append(all, net.JoinHostPort(addr, strconv.Itoa(b.ports[i%backendCount])))
	}
	return all
}

// datagrams returns the number of datagrams that the backends have received.
func (b *backends) datagrams() (int64, error) {
	var sum int64
	for _, port := range b.ports {
		n, err := askCount(port)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func askCount(port int) (int64, error) {
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Write(message(opCount, 0)); err != nil {
		return 0, err
	}
	answer := make([]byte, messageSize)
	if _, err := io.ReadFull(c, answer); err != nil {
		return 0, err
	}
	return sizeIn(answer), nil
}
