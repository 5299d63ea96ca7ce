package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/regular"
)

const (
	// settle is how long files must be unchanged before they are read, because several may be written one after
	// another.
	settle = 200 * time.Millisecond

	// lookAgain is the interval of reading the files if the system does not report changes.
	lookAgain = time.Second
)

// A Watch watches files and asks for a reload when they change.
type Watch struct {
	paths []string
	last  [sha256.Size]byte // fingerprint of the files at the last reload
}

// NewWatch returns a Watch for the files and folders at paths. Every later change asks for a reload, so NewWatch must
// be called before the files are read.
func NewWatch(paths []string) *Watch { return &Watch{paths, fingerprint(paths)} }

// run calls changed after each change of the files' content, until ctx ends.
func (w *Watch) run(ctx context.Context, log hclog.Logger, changed func()) {
	watcher, err := newWatcher(foldersOf(w.paths))
	if err != nil {
		log.Warn("the system does not report changed files, lictor reads them regularly instead", "error",
			err, "every", lookAgain)
		w.poll(ctx, changed)
		return
	}
	defer func() { _ = watcher.Close() }()
	quiet := time.NewTimer(settle) // once at first, for changes before the watch began
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-watcher.Events:
			quiet.Reset(settle)
		case err := <-watcher.Errors: // perhaps too many events at once, so check the files
			log.Debug("watching files", "error", err)
			quiet.Reset(settle)
		case <-quiet.C:
			if now := fingerprint(w.paths); now != w.last {
				w.last = now
				changed()
			}
		}
	}
}

// poll is run for systems that do not report changes. poll calls changed when two successive reads of changed files are
// equal.
func (w *Watch) poll(ctx context.Context, changed func()) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for before := w.last; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := fingerprint(w.paths)
		if now == before && now != w.last {
			w.last = now
			changed()
		}
		before = now
	}
}

// newWatcher returns a watcher for changes in all folders.
func newWatcher(folders []string) (*fsnotify.Watcher, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	for _, folder := range folders {
		if err := watcher.Add(folder); err != nil {
			return nil, errors.Join(fmt.Errorf("watch %s: %w", folder, err), watcher.Close())
		}
	}
	return watcher, nil
}

// foldersOf returns the folders to watch for changes of the files and folders at paths. For a symbolic link it returns
// the folders of the link and of its target, because Kubernetes replaces a link to change a configuration.
func foldersOf(paths []string) []string {
	seen := map[string]bool{}
	var folders []string
	add := func(folder string) {
		if !seen[folder] {
			seen[folder] = true
			folders = append(folders, folder)
		}
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			add(filepath.Clean(path))
		}
		add(filepath.Dir(filepath.Clean(path)))
		if real, err := filepath.EvalSymlinks(path); err == nil {
			add(filepath.Dir(real))
		}
	}
	return folders
}

// fingerprint returns a hash that changes when the result of config.Load would change.
func fingerprint(paths []string) [sha256.Size]byte {
	h := sha256.New()
	for _, path := range paths {
		files := []string{path}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			files, _ = config.Files(path) // an error is part of the state
		}
		for _, file := range files {
			text, err := regular.ReadFile(file, config.MaxFile)
			fmt.Fprintf(h, "%q %v %d\n", file, err, len(text))
			h.Write(text)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
