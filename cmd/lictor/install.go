package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// installs returns the files that -autocomplete-install changes: for each shell the first of its files that exists.
// getenv returns an environment variable.
func installs(getenv func(string) string) []install {
	home := getenv("HOME")
	if home == "" {
		return nil
	}
	folder := func(variable, otherwise string) string {
		if path := getenv(variable); path != "" {
			return path
		}
		return filepath.Join(home, otherwise)
	}
	fish := filepath.Join(folder("XDG_CONFIG_HOME", ".config"), "fish")
	var all []install
	for _, one := range []struct {
		shell      string
		candidates []string
	}{
		{"bash", []string{filepath.Join(home, ".bashrc"), filepath.Join(home, ".bash_profile"),
			filepath.Join(home, ".bash_login"), filepath.Join(home, ".profile")}},
		{"zsh", []string{filepath.Join(folder("ZDOTDIR", ""), ".zshrc")}},
		{"fish", []string{fish}},
	} {
		for _, path := range one.candidates {
			if _, err := os.Stat(path); err != nil {
				continue
			}
			if path == fish { // a folder for scripts instead of a file with lines
				path = filepath.Join(fish, "completions", "lictor.fish")
			}
			all = append(all, install{one.shell, path})
			break
		}
	}
	return all
}

// An install is a file that makes a shell load the completion.
type install struct{ shell, path string }

// loadingLine makes bash or zsh load the completion, if lictor is in $PATH. Other shells may read ~/.profile too, and
// cannot parse the script of bash.
func (i install) loadingLine() string {
	line := fmt.Sprintf(`command -v lictor >/dev/null && eval "$(lictor completion %s)" # lictor -autocomplete-install`,
		i.shell)
	if i.shell == "bash" {
		line = `[ -n "$BASH_VERSION" ] && ` + line
	}
	return line
}

// loading matches the lines that load the completion, also those of earlier builds.
func loading() *regexp.Regexp {
	return regexp.MustCompile(`(?m)^(?:.* # lictor -autocomplete-install|complete (?:-o nospace )?-C \S+ lictor)$\n?`)
}

// content returns the content of the file before, and as it is with or without the completion.
func (i install) content(with bool) (before, after []byte, err error) {
	before, err = os.ReadFile(i.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if i.shell == "fish" {
		if with {
			after = []byte(completionScript(i.shell))
		}
		return before, after, nil
	}
	after = loading().ReplaceAll(before, nil)
	if with {
		if len(after) > 0 && !bytes.HasSuffix(after, []byte("\n")) {
			after = append(after, '\n')
		}
		after = append(after, i.loadingLine()+"\n"...)
	}
	return before, after, nil
}

// change adds the completion to the file, or removes it. It returns false if nothing had to be changed.
func (i install) change(with bool) (changed bool, err error) {
	before, after, err := i.content(with)
	switch {
	case err != nil || bytes.Equal(before, after):
		return false, err
	case i.shell != "fish":
		return true, replace(i.path, after)
	case !with:
		return true, os.Remove(i.path)
	}
	if err := os.MkdirAll(filepath.Dir(i.path), 0o755); err != nil {
		return false, err
	}
	return true, os.WriteFile(i.path, after, 0o644)
}

// autocomplete obeys -autocomplete-install (with is true) and -autocomplete-uninstall, and returns the exit code.
func (c console) autocomplete(with bool) int {
	all := installs(os.Getenv)
	if len(all) == 0 {
		fmt.Fprintf(c.err, "lictor: no file of bash, zsh or fish was found in %q; "+
			"\"lictor completion -help\" shows how to load the completion\n", os.Getenv("HOME"))
		return exitFailed
	}
	code := exitOK
	for _, i := range all {
		changed, err := i.change(with)
		done := map[bool]string{true: "added to", false: "removed from"}[with]
		if !changed {
			done = map[bool]string{true: "already in", false: "not in"}[with]
		}
		if err != nil {
			fmt.Fprintf(c.err, "lictor: completion of %s: %v\n", i.shell, err)
			code = exitFailed
		} else if _, err := fmt.Fprintf(c.out, "completion of %s: %s %s\n", i.shell, done, i.path); err != nil {
			code = exitFailed
		}
	}
	if _, err := exec.LookPath("lictor"); err != nil && with {
		fmt.Fprintln(c.err, "lictor: note: the completion works as soon as lictor is in $PATH")
	}
	return code
}

// installing reports whether args ask to add or to remove the completion.
func installing(args []string) (with, is bool) {
	if len(args) != 1 {
		return false, false
	}
	switch strings.Replace(args[0], "--", "-", 1) {
	case "-autocomplete-install":
		return true, true
	case "-autocomplete-uninstall":
		return false, true
	}
	return false, false
}
