package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// Options are what Load takes from its surroundings.
type Options struct {
	// Getenv reads Consul's environment variables, of which white space around the value does not count. Nil means
	// os.Getenv.
	Getenv func(string) string

	// Hostname returns the name of this host. Nil means os.Hostname.
	Hostname func() (string, error)
}

// Load reads the files and directories at paths as one configuration: of a directory all *.hcl in the order of their
// names, without its folders. A file that is reached twice is read once. The Config is nil if, and only if, the
// diagnostics have errors.
//
// Files that the configuration names (tokens, certificates) are read too, to report now what would fail later; their
// paths are relative to the working directory.
func Load(paths []string, o Options) (*Config, Diagnostics) {
	l := newLoader(o)
	size := 0
	for _, path := range l.find(paths) {
		src, err := regular.ReadFile(path, MaxFile)
		switch {
		case errors.Is(err, regular.ErrTooLong):
			l.problem(nil, "Not a configuration",
				"%s has more than %d MiB. Name a file, or a directory that holds *.hcl files.", path, MaxFile>>20)
		case err != nil:
			l.problem(nil, "Unreadable configuration", "%v.", err)
		default:
			if size += len(src); size > maxTotal {
				l.problem(nil, "Too much configuration",
					"The files up to %s have more than %d MiB together.", path, maxTotal>>20)
				return l.finish()
			}
			l.parse(path, src)
		}
	}
	return l.finish()
}

// Parse is Load of one file's text. The name is for diagnostics.
func Parse(name string, src []byte, o Options) (*Config, Diagnostics) {
	l := newLoader(o)
	l.parse(name, src)
	return l.finish()
}

// loader is one run of Load.
type loader struct {
	getenv   func(string) string
	hostname func() (string, error)
	sources  sources
	bodies   []hcl.Body
	diags    hcl.Diagnostics
	cfg      Config
	claims   map[portClaim]*portClaims // what listens where, so far
	static   []staticClaim             // so far
	tokens   int                       // of all files so far, at most
}

func newLoader(o Options) *loader {
	l := &loader{hostname: o.Hostname, claims: map[portClaim]*portClaims{}}
	getenv := o.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	// A variable that was read from a file, such as a Kubernetes secret, often ends with a line break.
	l.getenv = func(name string) string { return strings.TrimSpace(getenv(name)) }
	if l.hostname == nil {
		l.hostname = os.Hostname
	}
	return l
}

// find lists the files at paths, each once.
func (l *loader) find(paths []string) []string {
	var files []string
	seen := map[string]bool{}
	add := func(path string) {
		if !seen[path] {
			seen[path] = true
			files = append(files, path)
		}
	}
	if len(paths) == 0 {
		l.problem(nil, "No configuration", "Name a file, or a directory that holds *.hcl files.")
	}
	for _, path := range paths {
		if path == "" { // which Clean would make the working directory
			l.problem(nil, "Unreadable configuration",
				"The path is empty. Name a file, or a directory that holds *.hcl files.")
			continue
		}
		path = filepath.Clean(path)
		info, err := os.Stat(path)
		switch {
		case err != nil:
			l.problem(nil, "Unreadable configuration", "%v.", err)
		case info.IsDir():
			found, err := Files(path)
			if err != nil {
				l.problem(nil, "Unreadable configuration", "%v.", err)
			}
			for _, file := range found {
				add(file)
			}
		default:
			add(path)
		}
	}
	return files
}

// Files lists the *.hcl of a directory in the order of their names. That there are none is an error.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		// Editors leave .web.hcl.swp and .#web.hcl beside web.hcl.
		if path := filepath.Join(dir, e.Name()); filepath.Ext(path) == ".hcl" && e.Name()[0] != '.' && !isDir(path) {
			files = append(files, path)
		}
	}
	if len(files) == 0 {
		return nil, &fs.PathError{Op: "read", Path: dir, Err: errors.New("the directory holds no *.hcl file")}
	}
	return files, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// parse adds one file.
func (l *loader) parse(name string, src []byte) {
	if d := unfit(name, src, &l.tokens); d != nil {
		l.diags = append(l.diags, d)
		if d.Subject != nil {
			l.sources.add(name, src, nil)
		}
		return
	}
	file, diags := parseSyntax(name, src)
	l.sources.add(name, src, file)
	if more := len(diags) - maxSyntaxErrors; more > 0 {
		diags = diags[:maxSyntaxErrors]
		diags[maxSyntaxErrors-1].Detail += fmt.Sprintf(" (And %d more in this file. Is it a configuration?)", more)
	}
	l.diags = append(l.diags, diags...)
	if !diags.HasErrors() {
		l.bodies = append(l.bodies, file.Body)
	}
}

// finish decodes what was parsed.
func (l *loader) finish() (*Config, Diagnostics) {
	root := l.open(hcl.MergeBodies(l.bodies), rootSchema(), hcl.Range{})
	l.cfg.LogLevel = root.oneOf("log_level", "info", LogLevels())
	l.cfg.LogJSON = root.boolean("log_json")
	l.cfg.UpgradeGrace = root.durationOrNever("upgrade_grace", 0, 0)
	l.cfg.ShutdownGrace = root.durationOrNone("shutdown_grace", DefaultShutdownGrace, Off)
	_ = l.cfg.Engine.UnmarshalText([]byte(root.oneOf("engine", EngineAuto.String(), engineNames())))
	l.cfg.StateDir = root.stateDir()
	l.services(root)
	l.consul(root)
	l.admin(root)
	l.cycles()
	l.accessLog(root)
	if len(l.cfg.Services) == 0 && !l.diags.HasErrors() {
		l.problem(l.sources.start(), "Nothing to serve",
			`There is no service. The smallest configuration is: service "web" { listen = "127.0.0.1:9000" }`)
	}
	diags := l.sources.diagnostics(l.diags)
	if diags.HasErrors() {
		return nil, diags
	}
	slices.SortFunc(l.cfg.Services, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	cfg := l.cfg // not l's, which would keep the parsed files
	return &cfg, diags
}

// stateDir reads where the state is. The folder may be missing, for it is made when it is needed.
func (b *block) stateDir() string {
	dir, ok := b.text("state_dir")
	if info, err := os.Stat(dir); ok && err == nil && !info.IsDir() {
		b.l.problem(b.rangeOf("state_dir"), "Not a folder",
			"state_dir: %q is a file. Name a folder, which need not exist yet.", dir)
	}
	return dir
}

// problem reports an error at subject; nil when it lies in no file.
func (l *loader) problem(subject *hcl.Range, summary, detail string, args ...any) {
	l.report(hcl.DiagError, subject, summary, fmt.Sprintf(detail, args...))
}

// warn reports at subject what is right for now.
func (l *loader) warn(subject *hcl.Range, summary, detail string, args ...any) {
	l.report(hcl.DiagWarning, subject, summary, fmt.Sprintf(detail, args...))
}

func (l *loader) report(severity hcl.DiagnosticSeverity, subject *hcl.Range, summary, detail string) {
	l.diags = append(l.diags, &hcl.Diagnostic{Severity: severity, Summary: summary, Detail: detail, Subject: subject})
}
