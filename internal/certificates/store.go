package certificates

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// A Store keeps the content of certificate files in memory, for connections that are made often. Run looks every second
// whether files have changed. A changed file is used only if its content is valid; until then, the former content stays
// in use. A certificate and its key are always used together. Connections never wait for a file.
//
// A Store is safe for concurrent use.
type Store struct {
	log    hclog.Logger
	report func(Report)

	mu   sync.Mutex
	kept map[files]*material // the files in use; guarded by mu
}

// A Report says what has happened to files that are in use.
type Report struct {
	// Files are the paths of the files: of a certificate and its key, or of authorities.
	Files []string

	// Services are the services that use the files, sorted.
	Services []string

	// What is what has happened. Err says why the files cannot be used, if that has happened.
	What What
	Err  error

	// Certificate is the certificate in use. It is nil for authorities. Expires is when the content in use expires.
	Certificate *x509.Certificate
	Expires     time.Time
}

// lookEvery is how often Run looks for changed files.
const lookEvery = time.Second

// readEvery is after how many looks Run reads a file that seems unchanged. Some file systems report changes badly.
const readEvery = 60

// hungAfter is the number of looks after which a read that has not ended is reported.
const hungAfter = 10

// NewStore returns an empty Store. Changes are logged, and passed to report, which may be nil and must not block.
func NewStore(log hclog.Logger, report func(Report)) *Store {
	if report == nil {
		report = func(Report) {}
	}
	return &Store{log: log, report: report, kept: map[files]*material{}}
}

// Run looks for changed files until ctx ends. Run returns then even if a file system hangs.
func (s *Store) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.Look()
		}
	}
}

// Look looks now for changes of all files, without waiting for the disk.
func (s *Store) Look() {
	var news []func()
	defer func() {
		for _, tell := range news {
			tell()
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.kept {
		if tell := s.tellHealth(m, time.Now()); tell != nil {
			news = append(news, tell)
		}
		if !m.looking.CompareAndSwap(false, true) {
			if m.waits++; m.waits == hungAfter {
				s.log.Warn("certificate files cannot be read, because the file system does not answer; "+
					"their last content stays in use", "files", m.files.paths())
			}
			continue
		}
		m.waits = 0
		m.looks++
		thorough := m.looks%readEvery == 0
		go func() {
			defer m.looking.Store(false)
			s.lookAt(m, thorough)
		}()
	}
}

// lookAt reads m again if it has changed. Only one goroutine at a time calls lookAt for m.
func (s *Store) lookAt(m *material, thorough bool) {
	seen := m.files.stamps()
	if !thorough && m.failures == 0 && seen.settled() && slices.EqualFunc(seen, m.seen, stamp.equal) {
		return
	}
	now, err := m.files.read()
	if err != nil {
		// Two files are rarely replaced at the same moment. Only what lasts is worth a word.
		if m.failures++; m.failures == 2 {
			s.log.Error("changed certificate files cannot be used, their last valid content stays in use", "error", err)
			m.problem.Store(&err)
			s.report(s.reportOf(m, Unusable, err))
		}
		return
	}
	reported, what := m.failures >= 2, Changed
	m.failures, m.seen = 0, seen
	m.problem.Store(nil)
	switch {
	case m.content.Load().sum != now.sum:
		m.content.Store(now)
		s.tell(m)
		s.log.Info("certificate files have changed, new connections use them", now.words(m.files)...)
	case reported:
		what = Usable
		s.log.Info("the certificate files can be used again", "files", m.files.paths())
	default:
		return
	}
	s.report(s.reportOf(m, what, nil))
}

// tell calls all users of m, after its content has changed.
func (s *Store) tell(m *material) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for u := range m.users {
		u.changed()
	}
}

func (s *Store) reportOf(m *material, what What, err error) Report {
	c := m.content.Load()
	r := Report{Files: m.files.paths(), What: what, Err: err, Expires: c.to}
	if c.pair != nil {
		r.Certificate = c.pair.Leaf
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for u := range m.users {
		if !slices.Contains(r.Services, u.service) {
			r.Services = append(r.Services, u.service)
		}
	}
	slices.Sort(r.Services)
	return r
}

// use adds a user to files, and reads them if they have none yet. An error says why the files cannot be used.
func (s *Store) use(f files, u *user) (*material, error) {
	s.mu.Lock()
	m := s.kept[f]
	if m != nil {
		m.users[u] = true
	}
	s.mu.Unlock()
	if m != nil {
		return m, nil
	}
	seen := f.stamps()
	read, err := f.read()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m = s.kept[f]; m == nil {
		m = &material{files: f, seen: seen, users: map[*user]bool{}}
		m.content.Store(read)
		s.kept[f] = m
	}
	m.users[u] = true
	return m, nil
}

// drop removes a user from everything that it uses. Files without users are forgotten.
func (s *Store) drop(u *user) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f, m := range s.kept {
		if delete(m.users, u); len(m.users) == 0 {
			delete(s.kept, f)
		}
	}
}

// A user is a Server or a Client. changed is called when the content of its files has changed. It must not block or
// call the Store.
type user struct {
	service string
	changed func()
}

// material is the content of files in use.
type material struct {
	files   files
	content atomic.Pointer[content]
	problem atomic.Pointer[error] // why the files cannot be used now; nil if they can
	looking atomic.Bool           // a goroutine runs lookAt

	// Only the goroutine of looking uses these.
	seen     stamps // when the files were read last
	failures int    // reads in a row that have failed

	// Store.mu guards these.
	users        map[*user]bool
	looks, waits int
	told         struct { // the last health that was reported, and of which content
		sum    [sha256.Size]byte
		health Health
	}
}

// content is what files hold. It does not change.
type content struct {
	sum      [sha256.Size]byte
	pair     *tls.Certificate // of a certificate and its key; otherwise nil
	roots    *x509.CertPool   // of authorities; otherwise nil
	number   int              // of certificates
	from, to time.Time        // when it is valid
}

// words describes c for the log.
func (c *content) words(f files) []any {
	if c.pair == nil {
		return []any{"files", f.paths(), "authorities", c.number}
	}
	return []any{"files", f.paths(), "names", namesOf(c.pair.Leaf), "expires", c.pair.Leaf.NotAfter.UTC()}
}

// files are files that are read together: a certificate and its key, or authorities.
type files struct {
	cert, key string
	roots     string // file or folder
}

// paths returns the paths of the files.
func (f files) paths() []string {
	if f.roots != "" {
		return []string{f.roots}
	}
	return []string{f.cert, f.key}
}

// walk returns the paths of all files, also of those in a folder.
func (f files) walk() (all []string, err error) {
	if f.roots == "" {
		return f.paths(), nil
	}
	err = filepath.WalkDir(f.roots, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, path)
		}
		return err
	})
	return all, err
}

// read reads the files.
func (f files) read() (*content, error) {
	paths, err := f.walk()
	if err != nil {
		return nil, err
	}
	c, sum := &content{}, sha256.New()
	pems := make([][]byte, len(paths))
	for i, path := range paths {
		if pems[i], err = regular.ReadFile(path, maxPEM); err != nil {
			return nil, err
		}
		fmt.Fprintf(sum, "%d ", len(pems[i]))
		sum.Write(pems[i])
	}
	copy(c.sum[:], sum.Sum(nil))
	if f.roots != "" {
		return c, c.addRoots(paths, pems)
	}
	pair, err := tls.X509KeyPair(pems[0], pems[1])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", f.cert, f.key, err)
	}
	c.pair = &pair
	c.setValidity(certificatesIn(pems[0]))
	return c, nil
}

// addRoots adds the certificates of files to the authorities.
func (c *content) addRoots(paths []string, pems [][]byte) error {
	c.roots = x509.NewCertPool()
	var all []*x509.Certificate
	for i, text := range pems {
		some := certificatesIn(text)
		if len(some) == 0 {
			return fmt.Errorf("no certificate in PEM form in %s", paths[i])
		}
		for _, cert := range some {
			c.roots.AddCert(cert)
		}
		all = append(all, some...)
	}
	c.number = len(all)
	c.setValidity(all)
	if c.number == 0 {
		return errors.New("the folder has no file")
	}
	return nil
}

// stamps say when files were changed last.
type stamps []stamp

// A stamp says when a file was changed last. The info is nil if there is no file.
type stamp struct {
	path string
	info fs.FileInfo
	at   time.Time // when the stamp was made
}

// stamps looks at the files without reading them.
func (f files) stamps() (all stamps) {
	paths, _ := f.walk() // reading them will say what is wrong
	for _, path := range paths {
		at := time.Now()
		info, _ := os.Stat(path)
		all = append(all, stamp{path, info, at})
	}
	return all
}

// equal reports whether nothing seems to have happened to a file between two stamps.
func (a stamp) equal(b stamp) bool {
	if a.info == nil || b.info == nil {
		return a.info == b.info
	}
	return a.path == b.path && os.SameFile(a.info, b.info) && a.info.Size() == b.info.Size() &&
		a.info.ModTime().Equal(b.info.ModTime())
}

// settled reports whether a later change of a file would change its stamp. If a file has just been changed, another
// change may have the same time.
func (all stamps) settled() bool {
	for _, s := range all {
		if s.info == nil || s.at.Sub(s.info.ModTime()).Abs() < 2*lookEvery {
			return false
		}
	}
	return true
}
