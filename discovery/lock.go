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

// lockFile is the name of the file that a process locks while it writes savedFile. The file contains the text of
// lockOwner.
const lockFile = "endpoints.lock"

// A folderLock keeps a second Lictor from overwriting the saved sets of the first. The zero folderLock is not locked. A
// folderLock is not safe for concurrent use.
type folderLock struct {
	file *os.File // nil: not locked

	// cannot is the error of the last call of lock if the folder cannot be locked at all. cannot is nil if the lock
	// succeeded or another process has the lock.
	cannot error
}

// errLockedHere is the error of lock if another store of this process has the lock. The other store is about to be
// replaced.
var errLockedHere = errors.New("an earlier source of this process has the lock")

// lockKey identifies this process. A process ID is not enough: containers that share a folder may each have a process
// 1, and may even have the same host name.
var lockKey = rand.Text()

// lockOwner returns the text that this process writes into the lockFile: the host and process for people, and lockKey.
func lockOwner() string {
	host, _ := os.Hostname() // without a name, the host stays unknown
	return fmt.Sprintf("%s:%d %s", host, os.Getpid(), lockKey)
}

// maxLockOwner is how many bytes of a lockFile are read.
const maxLockOwner = 400

// lock locks the folder dir, unless it is already locked by l. lock creates the folder if necessary. If another process
// has the lock, the error names that process. If the file system has no locks, lock sets l.cannot, stays unlocked, and
// returns no error.
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
	n, _ := f.ReadAt(text, 0) // on an error, the owner stays unknown
	owner := strings.TrimSpace(string(text[:n]))
	if owner == lockOwner() {
		return errLockedHere
	}
	process, _, _ := strings.Cut(owner, " ")
	return fmt.Errorf("another lictor saves its endpoints there, process %s: give each its own state_dir", process)
}

// openLock opens the lock file at path, or creates it. The file must be a regular file and not a link, because lock
// truncates it, and another program may have put something else there.
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

// unlock releases the lock, if there is one.
func (l *folderLock) unlock() {
	if l.file != nil {
		_ = l.file.Close() // closing cannot lose data
		l.file = nil
	}
}
