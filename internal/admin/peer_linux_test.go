package admin

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTrust(t *testing.T) {
	const root, me, lictor, stranger = 0, 1000, 900, 1001
	private, shared := owner{uid: root}, owner{uid: root, open: true}
	for _, tt := range []struct {
		name           string
		peer           uint32
		folder, parent owner
		chosen, found  bool
	}{
		{"root", root, shared, shared, true, true},
		{"oneself", me, shared, shared, true, true},
		{"the unit's folder", lictor, owner{uid: lictor}, private, true, true},
		{"a stranger in the unit's folder", stranger, owner{uid: lictor, open: true}, private, false, false},
		{"a stranger in a folder of root", stranger, shared, private, false, false},
		{"a stranger in a folder of one's own", stranger, owner{uid: me, open: true}, private, false, false},
		{"a folder that a stranger made in a shared one", stranger, owner{uid: stranger}, shared, true, false},
		{"a folder in a stranger's", stranger, owner{uid: stranger}, owner{uid: stranger}, true, false},
		{"a folder in one's own", lictor, owner{uid: lictor}, owner{uid: me}, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Chosen.trusts(tt.peer, me, tt.folder, tt.parent); got != tt.chosen {
				t.Errorf("chosen: got %v", got)
			}
			if got := Found.trusts(tt.peer, me, tt.folder, tt.parent); got != tt.found {
				t.Errorf("found: got %v", got)
			}
		})
	}
}

// listenAs listens at path as another user.
func listenAs(t *testing.T, uid int, path string) net.Listener {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	// The raw system call changes only this thread's user, unlike package syscall's function.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become := func(uid int) {
		const keep = ^uintptr(0)
		if _, _, err := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); err != 0 {
			t.Fatal(err)
		}
	}
	become(uid)
	l, err := net.Listen("unix", path)
	become(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// A client sends nothing, and so no token, to another user's process, unless that user owns the socket's folder.
func TestClientSendsNothingToAStranger(t *testing.T) {
	const nobody = 65534
	base := t.TempDir()
	shared, unit := filepath.Join(base, "shared"), filepath.Join(base, "unit")
	for dir, mode := range map[string]os.FileMode{filepath.Dir(base): 0o755, base: 0o755, shared: 0o777, unit: 0o755} {
		if err := errors.Join(os.MkdirAll(dir, mode), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(path string, trust Trust) (sent []byte, err error) {
		l := listenAs(t, nobody, path)
		got := make(chan []byte, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				close(got)
				return
			}
			defer func() { _ = conn.Close() }()
			b := make([]byte, 64)
			n, _ := io.ReadAtLeast(conn, b, 1)
			got <- b[:n]
		}()
		client := NewClient(Address{Socket: path}, "sesame", trust)
		defer client.Close()
		err = client.Get(t.Context(), "/v1/status", &Status{})
		return <-got, err
	}
	for _, trust := range []Trust{Chosen, Found} {
		sent, err := ask(filepath.Join(shared, "s"), trust)
		var stranger *StrangerError
		if !errors.As(err, &stranger) || stranger.UID != nobody {
			t.Errorf("%d: got %v, want that a stranger answers", trust, err)
		}
		if len(sent) > 0 {
			t.Errorf("%d: it was sent %q", trust, sent)
		}
		_ = os.Remove(filepath.Join(shared, "s"))
	}
	if err := os.Chown(unit, nobody, 0); err != nil {
		t.Fatal(err)
	}
	for _, trust := range []Trust{Chosen, Found} {
		if sent, err := ask(filepath.Join(unit, "s"), trust); len(sent) == 0 {
			t.Errorf("%d: the owner of the folder is not asked: %v", trust, err)
		}
		_ = os.Remove(filepath.Join(unit, "s"))
	}
}
