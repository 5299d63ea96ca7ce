package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/regular"
	"github.com/lictor-proxy/lictor/internal/visible"
)

type fmtCommand struct {
	console
	check, write, diff, recursive bool
}

func (c *fmtCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("fmt", flag.ContinueOnError)
	f.BoolVar(&c.check, "check", false, "")
	f.BoolVar(&c.write, "write", true, "")
	f.BoolVar(&c.diff, "diff", false, "")
	f.BoolVar(&c.recursive, "recursive", false, "")
	return f
}

func (c *fmtCommand) Synopsis() string              { return "Rewrite configuration files in the usual layout" }
func (c *fmtCommand) AutocompleteFlags() predictors { return completeFlags(c.flags(), nil) }
func (c *fmtCommand) AutocompleteArgs() predictor   { return configurations() }

func (c *fmtCommand) Help() string {
	return `Usage: lictor fmt [options] PATH...

  Rewrites configuration files in the usual layout, that of "terraform fmt", and
  prints the names of changed files. Of a directory, all *.hcl files are
  formatted. With "-" as PATH, fmt reads stdin and writes to stdout.

  A file with syntax errors is not changed, and its errors are reported.

Options:

  -check          Change nothing. Print the names of files that would change,
                  and exit with 1 if there are any.
  -write=false    Change nothing. Print the names of files that would change.
  -diff           Print the changes as a unified diff, instead of the names.
                  With "-" as PATH, instead of the text.
  -recursive      Format the files in subdirectories too.

Exit codes:

  0    All files have the usual layout now.
  1    A file has syntax errors, or cannot be read or written. With -check: a
       file would change.
  2    Wrong usage.

Examples:

    $ lictor fmt web.hcl
    $ lictor fmt -check -diff -recursive /etc/lictor
    $ lictor fmt - < web.hcl
`
}

func (c *fmtCommand) Run(args []string) int {
	paths, err := parse(c.flags(), args)
	switch {
	case err != nil:
	case len(paths) == 0:
		err = errors.New("no PATH given: name files or directories, or - for stdin")
	case slices.Contains(paths, "-") && len(paths) > 1:
		err = errors.New("- must be the only PATH: stdin cannot be mixed with files")
	}
	if err != nil {
		return c.usage("fmt", err)
	}
	if paths[0] == "-" {
		return c.formatStdin()
	}
	code := exitOK
	for _, path := range paths {
		files, err := c.find(path)
		if err != nil {
			code = c.fail(err)
		}
		for _, file := range files {
			code = max(code, c.formatFile(file))
		}
	}
	return code
}

func (c *fmtCommand) fail(err error) int {
	fmt.Fprintf(c.err, "lictor fmt: %v\n", err)
	return exitFailed
}

// find returns the files to format at path: the file itself, or the files of the directory.
func (c *fmtCommand) find(path string) ([]string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.IsDir():
		return []string{path}, nil
	case !c.recursive:
		return config.Files(path)
	}
	var files []string
	err = filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
		hidden := strings.HasPrefix(e.Name(), ".") && len(e.Name()) > 1 && e.Name() != ".."
		switch {
		case err != nil:
			return err
		case hidden && e.IsDir():
			return fs.SkipDir
		case !hidden && !e.IsDir() && filepath.Ext(path) == ".hcl":
			files = append(files, path)
		}
		return nil
	})
	return files, err
}

func (c *fmtCommand) formatStdin() int {
	src, err := io.ReadAll(io.LimitReader(c.in, config.MaxFile+1)) // Format refuses input that is longer
	if err != nil {
		return c.fail(err)
	}
	formatted, diags := config.Format("<stdin>", src)
	switch {
	case diags.HasErrors():
		return c.broken(diags)
	case (c.check || c.diff) && !bytes.Equal(src, formatted):
		return c.changed("<stdin>", src, formatted)
	case c.check || c.diff:
		return exitOK
	}
	if _, err := c.out.Write(formatted); err != nil {
		return c.fail(err)
	}
	return exitOK
}

func (c *fmtCommand) broken(diags config.Diagnostics) int {
	_ = diags.WriteText(c.err, isTerminal(c.err))
	return exitFailed
}

func (c *fmtCommand) formatFile(path string) int {
	src, err := regular.ReadFile(path, config.MaxFile)
	if err != nil {
		return c.fail(err)
	}
	formatted, diags := config.Format(path, src)
	switch {
	case diags.HasErrors():
		return c.broken(diags)
	case bytes.Equal(src, formatted):
		return exitOK
	}
	if c.write && !c.check {
		if err := replace(path, formatted); err != nil {
			return c.fail(err)
		}
	}
	return c.changed(path, src, formatted)
}

// changed prints the name of a file that is not formatted, or what is different, and returns the exit code.
func (c *fmtCommand) changed(path string, src, formatted []byte) int {
	out, text := c.out, []byte(path+"\n")
	if c.diff {
		name := strings.TrimPrefix(path, "/")
		out, text = visible.NewWriter(c.out), diff.Diff("a/"+name, src, "b/"+name, formatted)
	}
	if _, err := out.Write(text); err != nil {
		return c.fail(err)
	}
	if c.check {
		return exitFailed
	}
	return exitOK
}

// replace replaces the content of a file atomically, so that no reader sees half of it. The file keeps its mode, owner
// and group; if that fails, the file is not changed. If path is a symbolic link, replace changes the file that it
// points to.
func replace(path string, content []byte) (err error) {
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	// The temporary name must not end in .hcl. A lictor that starts now would read it.
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = temp.Close()
			_ = os.Remove(temp.Name())
		}
	}()
	if _, err = temp.Write(content); err != nil {
		return err
	}
	if err = keepOwner(temp, info); err != nil {
		return err
	}
	if err = temp.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if err = temp.Sync(); err != nil {
		return err
	}
	if err = temp.Close(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
