package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// Options are the parts of the environment that Load uses.
type Options struct {
	// Getenv returns the value of an environment variable, for Consul's variables. Load ignores white space around the
	// value. Nil means os.Getenv.
	Getenv func(string) string

	// Hostname returns the name of this host. Nil means os.Hostname.
	Hostname func() (string, error)

	// Stdin is what the path "-" stands for. If it is nil, "-" is the name of a file.
	Stdin io.Reader
}

// Load reads the files and directories at paths as one configuration. Of a directory it reads all *.hcl files, in the
// order of their names, and no subdirectories. The path "-" stands for Options.Stdin. Load reads each file once, even
// if several paths lead to it. The Config is nil if, and only if, the diagnostics have errors.
//
// Load also reads the files that the configuration names (tokens, certificates), to report now what would fail later.
// Their paths are relative to the working directory.
func Load(paths []string, o Options) (*Config, Diagnostics) {
	l := newLoader(o)
	size := 0
	for _, path := range l.find(paths) {
		src, err := l.read(path)
		switch {
		case errors.Is(err, regular.ErrTooLong):
			l.problem(nil, "Not a configuration",
				"%s has more than %d MiB. Name a file, or a directory that holds *.hcl files.", path, MaxFile>>20)
		case err != nil:
			l.problem(nil, "Unreadable configuration", "%v.", err)
		default:
			if size += len(src); size > maxTotal {
				l.problem(nil, "Too much configuration",
					"All files up to %s together have more than %d MiB. "+
						"Are all of them configurations?", path, maxTotal>>20)
				return l.finish()
			}
			l.parse(path, src)
		}
	}
	return l.finish()
}

// stdinName is what diagnostics call the text of Options.Stdin.
const stdinName = "<stdin>"

// read returns the content of a file that find has returned. An error wraps regular.ErrTooLong if the content is longer
// than MaxFile.
func (l *loader) read(path string) ([]byte, error) {
	if path != stdinName || l.stdin == nil {
		return regular.ReadFile(path, MaxFile)
	}
	src, err := io.ReadAll(io.LimitReader(l.stdin, MaxFile+1))
	if err == nil && len(src) > MaxFile {
		err = regular.ErrTooLong
	}
	return src, err
}

// Parse loads a configuration from the text of one file. Diagnostics call that file name.
func Parse(name string, src []byte, o Options) (*Config, Diagnostics) {
	l := newLoader(o)
	l.parse(name, src)
	return l.finish()
}

// loader is the state of one call of Load.
type loader struct {
	getenv   func(string) string
	hostname func() (string, error)
	stdin    io.Reader
	sources  sources
	bodies   []hcl.Body
	diags    hcl.Diagnostics
	cfg      Config
	claims   map[portClaim]*portClaims // listen addresses so far
	sockets  map[string]*claim         // paths of Unix sockets at which something listens so far
	static   []staticClaim             // static endpoints so far
	tokens   int                       // upper bound for all files so far

	kernelPathRanges []*hcl.Range // where each service of cfg says kernel_path, or is declared
}

func newLoader(o Options) *loader {
	l := &loader{hostname: o.Hostname, stdin: o.Stdin, claims: map[portClaim]*portClaims{},
		sockets: map[string]*claim{}}
	getenv := o.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	// The content of a file in a variable, such as a Kubernetes secret, often ends with a line break.
	l.getenv = func(name string) string { return strings.TrimSpace(getenv(name)) }
	if l.hostname == nil {
		l.hostname = os.Hostname
	}
	return l
}

// find returns the files at paths, each once.
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
		if path == "-" && l.stdin != nil {
			add(stdinName)
			continue
		}
		if path == "" { // Clean would turn it into the working directory
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

// Files returns the *.hcl files of a directory, sorted by name. It returns an error if there are none.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		// Editors leave files such as .web.hcl.swp and .#web.hcl beside web.hcl.
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

// parse parses one file and adds it to the configuration.
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
		diags[maxSyntaxErrors-1].Detail += fmt.Sprintf(
			" (%d more errors are not shown. Is this file a configuration?)", more)
	}
	l.diags = append(l.diags, diags...)
	if !diags.HasErrors() {
		l.bodies = append(l.bodies, file.Body)
	}
}

// finish decodes all parsed files and returns the result.
func (l *loader) finish() (*Config, Diagnostics) {
	root := l.open(nil, hcl.MergeBodies(l.bodies), rootSchema(), hcl.Range{})
	l.cfg.LogLevel = root.oneOf("log_level", "info", LogLevels())
	l.cfg.LogJSON = root.boolean("log_json", false)
	l.cfg.UpgradeGrace = root.durationOrNever("upgrade_grace", 0, 0)
	l.cfg.ShutdownGrace = root.durationOrNone("shutdown_grace", DefaultShutdownGrace, Off)
	_ = l.cfg.Engine.UnmarshalText([]byte(root.oneOf("engine", EngineAuto.String(), engineNames())))
	l.cfg.StateDir = root.stateDir()
	l.place(root)
	_ = l.cfg.KernelPath.UnmarshalText([]byte(root.oneOf("kernel_path", KernelPathOff.String(), kernelPathNames())))
	l.cfg.KernelPathCgroup = root.kernelPathCgroup()
	l.services(root)
	l.consul(root)
	l.admin(root)
	l.mesh(root)
	l.cycles()
	l.metrics(root)
	l.accessLog(root)
	l.onKernelPath()
	if len(l.cfg.Services)+len(l.cfg.Expose) == 0 && !l.diags.HasErrors() {
		l.problem(l.sources.start(), "Nothing to serve",
			`There is no service. The smallest configuration is: service "web" { listen = "127.0.0.1:9000" }`)
	}
	diags := l.sources.diagnostics(l.diags)
	if diags.HasErrors() {
		return nil, diags
	}
	slices.SortFunc(l.cfg.Services, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(l.cfg.Expose, func(a, b Expose) int { return strings.Compare(a.Name, b.Name) })
	cfg := l.cfg // a copy; a pointer to l.cfg would keep the parsed files in memory
	return &cfg, diags
}

// stateDir reads the argument state_dir. The folder may be missing, because Lictor creates it when it is needed.
func (b *block) stateDir() string {
	dir, ok := b.text("state_dir")
	if info, err := os.Stat(dir); ok && err == nil && !info.IsDir() {
		b.l.problem(b.rangeOf("state_dir"), "Not a folder",
			"state_dir: %q is a file. Name a folder; it need not exist yet.", dir)
	}
	return dir
}

// problem reports an error at subject. A nil subject means that the error is in no file.
func (l *loader) problem(subject *hcl.Range, summary, detail string, args ...any) {
	l.report(hcl.DiagError, subject, summary, fmt.Sprintf(detail, args...))
}

// warn reports a warning at subject: a later release may refuse what is written there, or it does not work now.
func (l *loader) warn(subject *hcl.Range, summary, detail string, args ...any) {
	l.report(hcl.DiagWarning, subject, summary, fmt.Sprintf(detail, args...))
}

func (l *loader) report(severity hcl.DiagnosticSeverity, subject *hcl.Range, summary, detail string) {
	l.diags = append(l.diags, &hcl.Diagnostic{Severity: severity, Summary: summary, Detail: detail, Subject: subject})
}
