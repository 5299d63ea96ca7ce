package discovery

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// lockFile is locked by the process that writes savedFile. It has the ID of that process in it.
const lockFile = "endpoints.lock"

// A folderLock keeps a second Lictor from overwriting what the first one saves. The zero folderLock is not locked. Not
// safe for concurrent use.
type folderLock struct{ file *os.File }

// errLockedHere is the error of lock if another store of this process has the lock: it is about to be replaced.
var errLockedHere = errors.New("an earlier source of this process has the lock")

// lock locks dir, which it makes if need be, unless it is locked already. The error names the process that has it
// locked.
func (l *folderLock) lock(dir string) error {
	if l.file != nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, lockFile)
	f, err := openLock(path)
	if err != nil {
		return err
	}
	if tryLock(f) != nil {
		owner := make([]byte, 20)
		n, _ := f.ReadAt(owner, 0) // at worst it is unknown
		pid := strings.TrimSpace(string(owner[:n]))
		if err := f.Close(); err != nil {
			return err
		}
		if pid == strconv.Itoa(os.Getpid()) {
			return errLockedHere
		}
		return fmt.Errorf("another lictor saves its endpoints there, process %s: give each a state_dir of its own", pid)
	}
	l.file = f
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return err
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
