//go:build unix

package upgrade

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxMessage bounds what is read at once; the sets of ten thousand services are a tenth of it.
const maxMessage = 256 << 20

// A conn carries messages and descriptors between the two processes, over a Unix socket that the successor is started
// with. One goroutine may send while another one receives.
type conn struct {
	unix    *net.UnixConn
	sending sync.Mutex
}

// newPair returns a conn, and the file of its other end, which is for a child process. The caller closes that file.
func newPair() (*conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	child := os.NewFile(uintptr(fds[1]), "successor")
	c, err := inheritConn(fds[0])
	if err != nil {
		return nil, nil, errors.Join(err, child.Close())
	}
	return c, child, nil
}

// inheritConn returns the conn of a descriptor that this process was started with.
func inheritConn(fd int) (*conn, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "handover")
	defer func() { _ = f.Close() }() // the connection has a descriptor of its own
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("descriptor %d is a socket of another kind", fd), c.Close())
	}
	return &conn{unix: u}, nil
}

// send sends v as JSON, with descriptors, which stay the caller's.
func (c *conn) send(v any, fds ...int) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	// The descriptors go with the size, which is small enough to go in one piece.
	if _, _, err := c.unix.WriteMsgUnix(binary.BigEndian.AppendUint32(nil, uint32(len(text))), rights,
		nil); err != nil {
		return err
	}
	_, err = c.unix.Write(text)
	return err
}

// receive reads the next message into v, and returns its descriptors, which are the caller's then. io.EOF means that
// the other process has ended, or has no more to say.
func (c *conn) receive(v any) (fds []int, err error) {
	defer func() {
		if err != nil {
			closeDescriptors(fds)
			fds = nil
		}
	}()
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	n, oobn, _, _, err := c.unix.ReadMsgUnix(head[:], oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	if fds, err = descriptors(oob[:oobn]); err != nil {
		return fds, err
	}
	if _, err = io.ReadFull(c.unix, head[n:]); err != nil {
		return fds, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxMessage {
		return fds, fmt.Errorf("a message of %d bytes", size)
	}
	text := make([]byte, size)
	if _, err = io.ReadFull(c.unix, text); err != nil {
		return fds, err
	}
	return fds, json.Unmarshal(text, v)
}

// descriptors reads control messages. Those that it returns are open, error or not.
func descriptors(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		some, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fds, err
		}
		fds = append(fds, some...)
	}
	return fds, nil
}

// SyscallConn implements syscall.Conn.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.unix.SyscallConn() }

// setDeadline sets when send and receive fail. The zero time means never. If c is closed, they fail anyway.
func (c *conn) setDeadline(t time.Time) { _ = c.unix.SetDeadline(t) }

// close ends the conversation: the other process receives io.EOF.
func (c *conn) close() { _ = c.unix.Close() } // everything was said, or nobody listens
