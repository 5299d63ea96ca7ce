package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// The linker sets these: -ldflags "-X main.version=v0.1.0 -X main.revision=0123456789ab".
var (
	version  = "dev"
	revision string // of the source; empty: use the revision that Go has recorded, if any
)

// A build says from what this program was built.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"` // empty if unknown
	Modified bool   `json:"modified"` // the source differed from the revision
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

func newBuild() build {
	b := build{Version: version, Revision: revision, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.addInfo(info)
	}
	return b
}

// addInfo adds what Go has recorded about the build.
func (b *build) addInfo(info *debug.BuildInfo) {
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	// A build by "go install module@v1.2.3" has no linker flags and no revision. The module's version is then the
	// version.
	if b.Version == "dev" && b.Revision == "" && strings.HasPrefix(info.Main.Version, "v") {
		b.Version = info.Main.Version
	}
}

// String returns the version as text, such as "lictor v0.1.0 (0123456789ab, go1.26.0 linux/amd64)".
func (b build) String() string {
	source := ""
	if b.Revision != "" {
		source = b.Revision[:min(12, len(b.Revision))]
		if b.Modified {
			source += "+changes"
		}
		source += ", "
	}
	return fmt.Sprintf("lictor %s (%s%s %s/%s)", b.Version, source, b.Go, b.OS, b.Arch)
}

type versionCommand struct {
	console
	json bool
}

func (c *versionCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("version", flag.ContinueOnError)
	f.BoolVar(&c.json, "json", false, "")
	return f
}

func (c *versionCommand) Synopsis() string { return "Print the version" }
func (c *versionCommand) AutocompleteFlags() predictors {
	return completeFlags(c.flags(), nil)
}
func (c *versionCommand) AutocompleteArgs() predictor { return nil }

func (c *versionCommand) Help() string {
	return `Usage: lictor version [options]

  Prints the version, the revision of the source if known, and the Go release
  that built lictor.

Options:

  -json    Print a JSON object.

Exit codes:

  0    The version was printed.
  1    The output could not be written.
  2    Wrong usage.

Examples:

    $ lictor version
    $ lictor version -json | jq -r .version
`
}

func (c *versionCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("unexpected argument %q", rest[0])
	}
	if err != nil {
		return c.usage("version", err)
	}
	b := newBuild()
	if c.json {
		enc := json.NewEncoder(c.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(b)
	} else {
		_, err = fmt.Fprintln(c.out, b)
	}
	if err != nil {
		fmt.Fprintf(c.err, "lictor version: %v\n", err)
		return exitFailed
	}
	return exitOK
}
