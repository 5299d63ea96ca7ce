// Engines checks that the two engines of package proxy do not use each other. Files loop_*.go hold the event loops,
// files portable*.go the portable engine, and all other files shared code. Shared code must not use a name of an
// engine, and an engine must not use a name of the other engine. Only tests and files
// engine*.go may use names of both engines. Files engine*.go choose the engine.
//
// Usage: engines FOLDER
//
// Engines prints every wrong use, and then exits with 1.
package main

import (
	"fmt"
	"go/ast"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// A side is the part of package proxy to which a file belongs.
type side string

const (
	shared   side = "shared code"
	loops    side = "the event loops"
	portable side = "the portable engine"
	choice   side = "the choice of the engine"
)

func sideOf(file string) side {
	switch name := filepath.Base(file); {
	case strings.HasPrefix(name, "loop_"):
		return loops
	case strings.HasPrefix(name, "portable"):
		return portable
	case strings.HasPrefix(name, "engine"):
		return choice
	}
	return shared
}

// may reports whether code of side from may use a name of side to.
func may(from, to side) bool { return to == shared || to == choice || from == to || from == choice }

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: engines FOLDER")
		os.Exit(2)
	}
	found := make(map[string]bool)
	for _, system := range []struct{ goos, tags string }{
		{"linux", ""}, {"linux", "faults"}, {"darwin", ""}, {"windows", ""}, // the tag changes nothing on other systems
	} {
		if err := check(os.Args[1], system.goos, system.tags, found); err != nil {
			fmt.Fprintln(os.Stderr, "engines:", err)
			os.Exit(2)
		}
	}
	for _, f := range slices.Sorted(maps.Keys(found)) {
		fmt.Println(f)
	}
	if len(found) > 0 {
		os.Exit(1)
	}
}

// check adds the wrong uses in a package to found. It loads the package as it is built for one system with the given
// tags. NeedDeps makes it read the sources of all imported packages, so that they need not be compiled for that system.
func check(folder, goos, tags string, found map[string]bool) error {
	loaded, err := packages.Load(&packages.Config{
		Mode:       packages.LoadSyntax | packages.NeedDeps,
		Dir:        folder,
		Env:        append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0"),
		BuildFlags: []string{"-tags=" + tags},
	}, ".")
	if err != nil {
		return err
	}
	for _, p := range loaded {
		if len(p.Errors) > 0 {
			return p.Errors[0]
		}
		for id, object := range p.TypesInfo.Uses {
			if object.Pkg() != p.Types || !object.Pos().IsValid() {
				continue
			}
			report(p, id, object, found)
		}
	}
	return nil
}

func report(p *packages.Package, id *ast.Ident, object types.Object, found map[string]bool) {
	at, declared := p.Fset.Position(id.Pos()), p.Fset.Position(object.Pos())
	if from, to := sideOf(at.Filename), sideOf(declared.Filename); !may(from, to) {
		found[fmt.Sprintf("%s:%d: %s uses %s of %s (%s)", filepath.Base(at.Filename), at.Line, from, id.Name, to,
			filepath.Base(declared.Filename))] = true
	}
}
