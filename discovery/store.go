package discovery

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/regular"
	"github.com/lictor-proxy/lictor/internal/statefile"
)

// A store saves the sets of all watches in a file, so that the next process can serve them before Consul answers. The
// methods of a store may be called concurrently, except for run.
type store struct {
	dir   string
	log   hclog.Logger
	dirty chan struct{} // has an element if a set has changed since the last write began

	writing sync.Mutex // locked while the file is written; guards the following fields
	held    bool       // writing is forbidden
	lock    folderLock // locked while this store writes
	noLock  bool       // the log already says that the folder cannot be locked
}

const (
	savedFile = "endpoints.saved"
	asideFile = "endpoints.aside" // the last savedFile that was not usable

	saveInterval = time.Second      // shortest time between two writes
	saveRetry    = 10 * time.Second // pause after a failed write
)

func newStore(dir string, log hclog.Logger) *store {
	return &store{dir: dir, log: log, dirty: make(chan struct{}, 1)}
}

// markDirty records that the sets have changed since the last write.
func (s *store) markDirty() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// load returns the saved sets. If the file is not usable, load logs a warning, moves the file aside, and returns no
// sets, so that Lictor starts in any case.
func (s *store) load() saved {
	path := filepath.Join(s.dir, savedFile)
	file, err := regular.ReadFile(path, consul.MaxBody)
	if errors.Is(err, fs.ErrNotExist) {
		return saved{}
	}
	var all saved
	if err == nil {
		all, err = decodeSaved(file)
	}
	if err == nil {
		return all
	}
	about := []any{"file", path, "reason", err}
	if s.setAside() {
		about = append(about, "moved_to", filepath.Join(s.dir, asideFile))
	}
	s.log.Warn("saved endpoints cannot be used, services have no endpoints until consul answers", about...)
	return saved{}
}

// setAside moves the file aside, and reports whether it did. If another store may be writing now, the file belongs to
// that store, and stays.
func (s *store) setAside() bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.held {
		return false
	}
	if s.lock.file == nil { // the next write takes the lock for longer
		defer s.lock.unlock()
	}
	if s.lockLocked() != nil {
		return false
	}
	if err := os.Rename(filepath.Join(s.dir, savedFile), filepath.Join(s.dir, asideFile)); err != nil {
		s.log.Warn("saved endpoints cannot be set aside", "error", err)
		return false
	}
	return true
}

// lockLocked locks the folder, or returns why this store must not write. If the folder cannot be locked at all, the
// store may write, and lockLocked logs one warning. The caller holds s.writing.
func (s *store) lockLocked() error {
	err := s.lock.lock(s.dir)
	if s.lock.cannot != nil && !s.noLock {
		s.noLock = true
		s.log.Warn("the folder cannot be locked: a second lictor with the same state_dir would overwrite its endpoints",
			"folder", s.dir, "error", s.lock.cannot)
	}
	return err
}

// run writes the result of collect after each change, until ctx ends and all changes are written.
func (s *store) run(ctx context.Context, collect func(context.Context) saved) {
	defer s.release()
	failing := false
	for {
		select {
		case <-s.dirty:
		case <-ctx.Done():
			select {
			case <-s.dirty:
				s.failed(s.write(collect(ctx)), failing)
			default:
			}
			return
		}
		pause := saveInterval
		switch err := s.write(collect(ctx)); {
		case errors.Is(err, errLockedHere): // soon the other store will release the lock
			s.markDirty()
		case s.failed(err, failing):
			failing, pause = true, saveRetry
			s.markDirty()
		case failing:
			failing = false
			s.log.Info("endpoints are saved again", "folder", s.dir)
		}
		consul.Sleep(ctx, pause, nil)
	}
}

// release lets another store write.
func (s *store) release() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.lock.unlock()
}

// hold stops writing if on is true, and resumes it if on is false. After hold(true) has returned, another process may
// write.
func (s *store) hold(on bool) {
	s.writing.Lock()
	if s.held = on; on {
		s.lock.unlock()
	}
	s.writing.Unlock()
	if !on {
		s.markDirty()
	}
}

// write replaces the file. While another store of this process writes, the error is or wraps errLockedHere.
func (s *store) write(all saved) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.held {
		return nil
	}
	if err := s.lockLocked(); err != nil {
		return err
	}
	file, err := encodeSaved(all)
	if err != nil {
		return err
	}
	return statefile.Replace(s.dir, savedFile, file)
}

// failed reports whether err is the error of a failed write. failed logs err unless the last write failed too.
func (s *store) failed(err error, failing bool) bool {
	if err != nil && !failing {
		s.log.Warn("endpoints cannot be saved: if lictor restarts while consul is away, it starts without them",
			"folder", s.dir, "error", err)
	}
	return err != nil
}
