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

// maxMessage limits the size of a message in bytes. The sets of ten thousand services need a tenth of it.
const maxMessage = 256 << 20

// A conn carries messages and descriptors between the two processes, over a Unix socket that the successor inherits.
// One goroutine may send while another one receives.
type conn struct {
	unix    *net.UnixConn
	sending sync.Mutex
}

// newPair returns a conn, and the file of its other end for a child process. The caller must close the file.
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

// inheritConn returns a conn for a descriptor that this process has inherited.
func inheritConn(fd int) (*conn, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "handover")
	defer func() { _ = f.Close() }() // the connection has its own descriptor
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("descriptor %d is not a Unix socket", fd), c.Close())
	}
	return &conn{unix: u}, nil
}

// send sends v as JSON, with copies of the descriptors. The caller still owns the descriptors.
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
	// The descriptors are sent with the size, which is small enough to be written at once.
	if _, _, err := c.unix.WriteMsgUnix(binary.BigEndian.AppendUint32(nil, uint32(len(text))), rights,
		nil); err != nil {
		return err
	}
	_, err = c.unix.Write(text)
	return err
}

// receive reads the next message into v, and returns the descriptors of the message, which the caller must close.
// receive returns io.EOF if the other process has ended or has closed the conn.
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
		return fds, fmt.Errorf("the message has %d bytes, which is too long", size)
	}
	text := make([]byte, size)
	if _, err = io.ReadFull(c.unix, text); err != nil {
		return fds, err
	}
	return fds, json.Unmarshal(text, v)
}

// descriptors parses control messages. The returned descriptors are open, even with an error.
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

// setDeadline sets the time after which send and receive fail. The zero time means never.
func (c *conn) setDeadline(t time.Time) { _ = c.unix.SetDeadline(t) }

// close closes the conn: the other process receives io.EOF.
func (c *conn) close() { _ = c.unix.Close() } // an error has no receiver
