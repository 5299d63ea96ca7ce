//go:build unix

package upgrade

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (a, b *conn) {
	t.Helper()
	a, file, err := newPair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = inheritConn(fd); err != nil {
		t.Fatal(err)
	}
	file.Close()
	t.Cleanup(func() { a.close(); b.close() })
	return a, b
}

type testMessage struct {
	Text string
	N    int
}

func TestMessagesCarryDescriptors(t *testing.T) {
	a, b := pair(t)
	var files []*os.File
	var fds []int
	for i := range maxDescriptors {
		f, err := os.Create(filepath.Join(t.TempDir(), fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, fds = append(files, f), append(fds, int(f.Fd()))
	}
	long := strings.Repeat("long ", 1<<18)
	sent := make(chan error, 1)
	go func() {
		err := a.send(testMessage{"first", 1}, fds...)
		if err == nil {
			err = a.send(testMessage{long, 2})
		}
		if err == nil {
			err = a.send(testMessage{"third", 3}, fds[:2]...)
		}
		a.close()
		sent <- err
	}()
	for n, want := range []testMessage{{"first", 1}, {long, 2}, {"third", 3}} {
		var m testMessage
		got, err := b.receive(&m)
		if err != nil || m != want {
			t.Fatalf("message %d: %v, %v", n+1, m.N, err)
		}
		for i, fd := range got {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("message %d, descriptor %d would be inherited: %v", n+1, i, err)
			}
			if _, err := unix.Write(fd, []byte{'x'}); err != nil {
				t.Error(err)
			}
		}
		if want := []int{maxDescriptors, 0, 2}[n]; len(got) != want {
			t.Errorf("message %d: %d descriptors, want %d", n+1, len(got), want)
		}
		closeDescriptors(got)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	for i, f := range files {
		want := int64(1)
		if i < 2 {
			want = 2
		}
		if info, err := f.Stat(); err != nil || info.Size() != want {
			t.Errorf("file %d: %v, %v", i, info, err)
		}
	}
	if _, err := b.receive(new(testMessage)); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestWhatIsNotAMessageIsAnError(t *testing.T) {
	for _, bytes := range []string{"\x00\x00\x00\x02{]", "\xff\xff\xff\xff", "\x00\x00", "\x00\x00\x00\x09{}"} {
		a, b := pair(t)
		if _, err := a.unix.Write([]byte(bytes)); err != nil {
			t.Fatal(err)
		}
		a.close()
		if _, err := b.receive(new(testMessage)); err == nil {
			t.Errorf("%q is taken for a message", bytes)
		}
	}
}

func TestAnotherDescriptorIsNoConn(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "f")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if c, err := inheritConn(fd); err == nil {
		c.close()
		t.Error("a file is taken for a connection")
	}
}
