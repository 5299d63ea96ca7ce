package discovery

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// lockFile is locked by the process that writes savedFile. It has the text of lockOwner in it.
const lockFile = "endpoints.lock"

// A folderLock keeps a second Lictor from overwriting what the first one saves. The zero folderLock is not locked. Not
// safe for concurrent use.
type folderLock struct {
	file *os.File // nil: not locked

	// cannot is why lock could not lock the folder when it last tried, though no other process has the lock. Nil: it
	// could, or another has.
	cannot error
}

// errLockedHere is the error of lock if another store of this process has the lock: it is about to be replaced.
var errLockedHere = errors.New("an earlier source of this process has the lock")

// lockKey tells this process from others. A process ID does not: containers that share a folder may each have a process
// 1, and even the name of the host.
var lockKey = rand.Text()

// lockOwner returns the text that this process writes into a lockFile: where it runs, for people, and lockKey.
func lockOwner() string {
	host, _ := os.Hostname() // at worst it is unknown
	return fmt.Sprintf("%s:%d %s", host, os.Getpid(), lockKey)
}

// maxLockOwner is how much of a lockFile is read.
const maxLockOwner = 400

// lock locks dir, which it makes if need be, unless it is locked already. The error names the process that has it
// locked. A file system without locks is no error: lock sets l.cannot, and l stays unlocked.
func (l *folderLock) lock(dir string) error {
	if l.file != nil {
		return nil
	}
	l.cannot = nil
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := openLock(filepath.Join(dir, lockFile))
	if err != nil {
		return err
	}
	held, err := tryLock(f)
	switch {
	case err != nil:
		l.cannot = err
		return f.Close()
	case held:
		return errors.Join(lockedBy(f), f.Close())
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(lockOwner()+"\n"), 0)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file = f
	return nil
}

// lockedBy returns the error for a lockFile that another store has locked.
func lockedBy(f *os.File) error {
	text := make([]byte, maxLockOwner)
	n, _ := f.ReadAt(text, 0) // at worst it is unknown
	owner := strings.TrimSpace(string(text[:n]))
	if owner == lockOwner() {
		return errLockedHere
	}
	process, _, _ := strings.Cut(owner, " ")
	return fmt.Errorf("another lictor saves its endpoints there, process %s: give each a state_dir of its own", process)
}

// openLock opens the lock file at path, or makes it. What is there may be somebody else's, and lock truncates it; so it
// has to be a regular file, and no link to one.
func openLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|regular.AtOnce|regular.NoFollow, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		what := fmt.Errorf("is %s, not a regular file", regular.Kind(info.Mode()))
		err = &fs.PathError{Op: "lock", Path: path, Err: what}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// unlock ends the lock, if there is one.
func (l *folderLock) unlock() {
	if l.file != nil {
		_ = l.file.Close() // nothing is lost with it
		l.file = nil
	}
}
