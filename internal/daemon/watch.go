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
	// settle is how long files must have been left alone before they are read: more than one may be written in a row.
	settle = 200 * time.Millisecond

	// lookAgain is how often files are looked at if the system does not tell of changes.
	lookAgain = time.Second
)

// A Watch is for files whose changes ask for a reload.
type Watch struct {
	paths []string
	last  [sha256.Size]byte // fingerprint
}

// NewWatch returns a Watch for the files and folders at paths. What changes after that asks for a reload, so NewWatch
// is called before the files are read.
func NewWatch(paths []string) *Watch { return &Watch{paths, fingerprint(paths)} }

// run calls changed whenever the files have another content than last, until ctx ends.
func (w *Watch) run(ctx context.Context, log hclog.Logger, changed func()) {
	watcher, err := newWatcher(foldersOf(w.paths))
	if err != nil {
		log.Warn("the system does not tell of changed files, reading them again and again", "error",
			err, "every", lookAgain)
		w.poll(ctx, changed)
		return
	}
	defer func() { _ = watcher.Close() }()
	quiet := time.NewTimer(settle) // once at first: for what changed before the watch began
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-watcher.Events:
			quiet.Reset(settle)
		case err := <-watcher.Errors: // too many events at once, perhaps: look
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

// poll does what run does where the system does not tell of changes. Files have settled when they are the same twice.
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

// newWatcher returns what tells of changes in all of the folders.
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

// foldersOf returns the folders to watch for changes of the files and folders at paths. If a path is a symbolic link,
// these are the folder of the link and that of its target: Kubernetes changes mounted configurations by another link.
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

// fingerprint returns what changes when what config.Load would read changes.
func fingerprint(paths []string) [sha256.Size]byte {
	h := sha256.New()
	for _, path := range paths {
		files := []string{path}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			files, _ = config.Files(path) // an error is a state like any other
		}
		for _, file := range files {
			text, err := regular.ReadFile(file, config.MaxFile)
			fmt.Fprintf(h, "%q %v %d\n", file, err, len(text))
			h.Write(text)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
