// Command notices prints the licenses and notices of all modules that are linked into lictor on the given systems.
// It fails if a module has no license file.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

// A module is a part of the program with a license of its own. Dir is the folder with its source.
type module struct {
	Path, Version, Dir string
	Main               bool
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: notices FOLDER GOOS/GOARCH [GOOS/GOARCH ...]")
	}
	modules, err := standardLibrary()
	if err != nil {
		return err
	}
	for _, target := range args[1:] {
		if err := linked(args[0], target, modules); err != nil {
			return err
		}
	}
	fmt.Print("Lictor contains the modules below. Each keeps its license.\n\n")
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		fmt.Printf("  %s %s\n", path, modules[path].Version)
	}
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		if err := write(os.Stdout, modules[path]); err != nil {
			return err
		}
	}
	return nil
}

// standardLibrary returns Go itself: its library is a part of each program.
func standardLibrary() (map[string]module, error) {
	out, err := exec.Command("go", "env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return nil, err
	}
	lines := strings.Fields(string(out))
	if len(lines) != 2 {
		return nil, fmt.Errorf("go env answers %q", out)
	}
	const path = "go.dev/std"
	return map[string]module{path: {Path: path, Dir: lines[0], Version: lines[1]}}, nil
}

// linked adds the modules of the packages that the target needs.
func linked(folder, target string, modules map[string]module) error {
	goos, goarch, _ := strings.Cut(target, "/")
	cmd := exec.Command("go", "list", "-deps", "-f",
		`{{with .Module}}{"Path":{{printf "%q" .Path}},"Version":{{printf "%q" .Version}},`+
			`"Dir":{{printf "%q" .Dir}},"Main":{{.Main}}}{{end}}`, "./cmd/lictor")
	cmd.Dir, cmd.Stderr = folder, os.Stderr
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var m module
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if !m.Main {
			modules[m.Path] = m
		}
	}
}

var noticeFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents|authors)([.-].*)?$`)
var licenseFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying)`)

// write prints what a module wants to be shown.
func write(out io.Writer, m module) error {
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return err
	}
	licensed := false
	fmt.Fprintf(out, "\n%s\n%s %s\n", strings.Repeat("=", 80), m.Path, m.Version)
	for _, entry := range entries {
		if entry.IsDir() || !noticeFile.MatchString(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.Dir, entry.Name()))
		if err != nil {
			return err
		}
		if licenseFile.MatchString(entry.Name()) {
			licensed = true
			if bytes.Contains(text, []byte("Mozilla Public License")) {
				fmt.Fprintf(out, "The source of this module is available under the Mozilla Public License 2.0 at\n%s\n",
					source(m))
			}
		}
		fmt.Fprintf(out, "\n--- %s\n\n%s\n", entry.Name(), bytes.TrimSpace(text))
	}
	if !licensed {
		return fmt.Errorf("%s %s has no license file in %s", m.Path, m.Version, m.Dir)
	}
	return nil
}

var pseudo = regexp.MustCompile(`[.-]\d{14}-([0-9a-f]{12})$`)

// source returns the address of the module's source at its version.
func source(m module) string {
	parts := strings.Split(m.Path, "/")
	if parts[0] != "github.com" || len(parts) < 3 {
		return "https://pkg.go.dev/" + m.Path + "@" + m.Version
	}
	folder := regexp.MustCompile(`(^|/)v\d+$`).ReplaceAllString(strings.Join(parts[3:], "/"), "")
	tag := strings.TrimSuffix(m.Version, "+incompatible")
	if commit := pseudo.FindStringSubmatch(tag); commit != nil {
		tag = commit[1]
	} else if folder != "" {
		tag = folder + "/" + tag
	}
	return "https://" + strings.Join(parts[:3], "/") + "/tree/" + tag
}
