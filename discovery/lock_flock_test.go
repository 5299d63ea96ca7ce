//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package discovery

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// The lock of a folder passes from one store to the next. A second process learns which process has the lock.
func TestFolderLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	var first, second folderLock
	for range 2 { // the second time changes nothing
		if err := first.lock(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := second.lock(dir); !errors.Is(err, errLockedHere) {
		t.Errorf("got %v, want errLockedHere", err)
	}
	own := fmt.Sprint(os.Getpid())
	process, _, _ := strings.Cut(lockOwner(), " ")
	for _, owner := range []string{own, process, "other-container:" + own, strings.Repeat("h", 255) + ":" + own} {
		write(t, filepath.Join(dir, lockFile), owner+" another key\n")
		if err := second.lock(dir); err == nil || !strings.Contains(err.Error(), "process "+owner+":") {
			t.Errorf("got %v, want that process %s has the lock", err, owner)
		}
	}
	first.unlock()
	first.unlock()
	if err := second.lock(dir); err != nil {
		t.Errorf("got %v after the first let go", err)
	}
	second.unlock()
}

// Locking truncates the lock file, so a symbolic link or a FIFO with the name of the lock file must stay unchanged.
func TestFolderLockChangesNothingElse(t *testing.T) {
	dir := t.TempDir()
	precious, path := filepath.Join(dir, "precious"), filepath.Join(dir, lockFile)
	write(t, precious, "as it was")
	if err := os.Symlink(precious, path); err != nil {
		t.Fatal(err)
	}
	var l folderLock
	if err := l.lock(dir); err == nil {
		t.Error("a symbolic link was locked")
	}
	if text, err := os.ReadFile(precious); err != nil || string(text) != "as it was" {
		t.Errorf("got %q, %v", text, err)
	}
	l.unlock()
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := l.lock(dir); err == nil || !strings.Contains(err.Error(), "is a FIFO, not a regular file") {
		t.Errorf("got %v, want an error about a FIFO", err)
	}
	l.unlock()
}

// On a file system without locks, sets are saved all the same. The log says so once.
func TestFolderWithoutLocks(t *testing.T) {
	flock = func(int, int) error { return syscall.ENOLCK }
	defer func() { flock = syscall.Flock }()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		replies := []reply{ok(20, "a 80"), after(10*time.Second, ok(21, "a 80", "b 81"))}
		r := start(t, &fake{script: map[string][]reply{"web": replies}}, ConsulOptions{StateDir: dir})
		time.Sleep(time.Minute)
		r.log.wantOnce(t, "the folder cannot be locked")
		r.stop()
	})
	if !strings.Contains(string(savedIn(t, dir)), "10.0.0.1:81") {
		t.Error("the set was not saved")
	}
}

// A signal that arrives during the lock call changes nothing.
func TestFolderLockIsTriedAgain(t *testing.T) {
	tries := 0
	flock = func(fd, how int) error {
		if tries++; tries == 1 {
			return syscall.EINTR
		}
		return syscall.Flock(fd, how)
	}
	defer func() { flock = syscall.Flock }()
	var l folderLock
	if err := l.lock(t.TempDir()); err != nil || l.file == nil {
		t.Errorf("locked: %v, %v", l.file != nil, err)
	}
	l.unlock()
}

// The file of another store is not moved aside, even if it is damaged.
func TestFileOfAnotherStoreIsNotSetAside(t *testing.T) {
	dir := savedFrom(t, clusterOf("a.consul", "dc1"))
	path := filepath.Join(dir, savedFile)
	good := string(savedIn(t, dir))
	var first folderLock
	if err := first.lock(dir); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{good, "damaged"} {
		write(t, path, content)
		log := &journal{}
		for range 2 {
			o := ConsulOptions{Address: "127.0.0.1:1", StateDir: dir, Logger: log.logger(hclog.Info)}
			if _, err := NewConsul(o); err != nil {
				t.Fatal(err)
			}
		}
		if got := string(savedIn(t, dir)); got != content || strings.Contains(log.String(), "moved_to") {
			t.Errorf("the file has %q, want %q; log %s", got, content, log)
		}
	}
	first.unlock()
	if _, err := NewConsul(ConsulOptions{Address: "127.0.0.1:1", StateDir: dir}); err != nil {
		t.Fatal(err)
	}
	if err := first.lock(dir); err != nil {
		t.Errorf("got %v, want that a store without a change keeps no lock", err)
	}
	first.unlock()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("got %v, want that the file was set aside", err)
	}
}

// A store that waits for an earlier source of the same process has saved nothing yet, and logs no success.
func TestWaitingForAnEarlierSourceIsNoSuccess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	write(t, dir, "in the way")
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{script: map[string][]reply{"web": {ok(20, "a 80")}}}, ConsulOptions{StateDir: dir})
		time.Sleep(time.Minute + time.Second) // not at the moment of a write, which holds the lock
		r.log.wantOnce(t, "endpoints cannot be saved")
		var first folderLock
		if err := errors.Join(os.Remove(dir), first.lock(dir)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if strings.Contains(r.log.String(), "endpoints are saved again") {
			t.Error(r.log)
		}
		first.unlock()
		time.Sleep(time.Minute)
		r.log.wantOnce(t, "endpoints are saved again", "endpoints cannot be saved")
		r.stop()
	})
	if !strings.Contains(string(savedIn(t, dir)), "10.0.0.1:80") {
		t.Error("the set was not saved")
	}
}

// TestLockHolder is a helper and not a test. TestTwoLictorsWithOneFolder runs it in another process, in which it locks
// a folder until its input ends.
func TestLockHolder(t *testing.T) {
	dir := os.Getenv("LOCK_FOLDER")
	if dir == "" {
		t.Skip("part of TestTwoLictorsWithOneFolder")
	}
	var l folderLock
	if err := l.lock(dir); err != nil {
		t.Fatal(err)
	}
	_, _ = os.Stdout.WriteString("locked\n")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// A second Lictor with the same folder does not overwrite the sets of the first, and logs that once. When the first has
// ended, the second saves its sets.
func TestTwoLictorsWithOneFolder(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockHolder$")
	cmd.Env = append(os.Environ(), "LOCK_FOLDER="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{script: map[string][]reply{"web": {ok(20, "a 80")}}}, ConsulOptions{StateDir: dir})
		time.Sleep(time.Minute)
		if _, err := os.Stat(filepath.Join(dir, savedFile)); !os.IsNotExist(err) {
			t.Errorf("file: %v, want none", err)
		}
		r.log.wantOnce(t, "another lictor saves its endpoints there")
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		r.log.wantOnce(t, "endpoints are saved again")
		r.stop()
	})
	if !strings.Contains(string(savedIn(t, dir)), "10.0.0.1:80") {
		t.Error("the set was not saved")
	}
}

// While another process is to write, HoldState releases the lock.
func TestHoldStatePassesTheLockOn(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{script: map[string][]reply{"web": {ok(20, "a 80")}}}, ConsulOptions{StateDir: dir})
		time.Sleep(time.Minute)
		var other folderLock
		if err := other.lock(dir); err == nil {
			t.Error("the folder is not locked")
		}
		r.consul.HoldState(true)
		if err := other.lock(dir); err != nil {
			t.Errorf("got %v, want a free lock", err)
		}
		other.unlock()
		r.consul.HoldState(false)
		time.Sleep(time.Minute)
		if err := other.lock(dir); err == nil {
			t.Error("the folder is not locked again")
		}
		r.stop()
		if err := other.lock(dir); err != nil {
			t.Errorf("got %v after the end", err)
		}
		other.unlock()
	})
}
