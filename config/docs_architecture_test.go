package config

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sourceName matches a file and names that are declared in it, as docs/architecture.md writes them.
var sourceName = regexp.MustCompile("`([a-z0-9_./]+\\.[a-z]+)(?:: ([A-Za-z0-9_., ]+))?`")

// TestArchitectureNamesWhatThereIs checks that the files in docs/architecture.md and docs/ends.md exist, and that each
// of them declares the functions that are named with it.
func TestArchitectureNamesWhatThereIs(t *testing.T) {
	files, names := 0, 0
	pages := readPage(t, "../docs/architecture.md") + readPage(t, "../docs/ends.md")
	for _, m := range sourceName.FindAllStringSubmatch(pages, -1) {
		path := filepath.Join("..", m[1])
		if !strings.Contains(m[1], "/") && m[1] != "example.hcl" {
			continue // not a path of this repository
		}
		files++
		if _, err := os.Stat(path); err != nil {
			t.Errorf("a page names %s, which does not exist", m[1])
			continue
		}
		if m[2] == "" {
			continue
		}
		known := declarations(t, path)
		for name := range strings.SplitSeq(m[2], ", ") {
			names++
			if !known[name] {
				t.Errorf("a page names %s in %s, which does not declare it", name, m[1])
			}
		}
	}
	if files < 100 || names < 100 {
		t.Errorf("%d files and %d names are found; does this test look for them in the right way?", files, names)
	}
}

// declarations returns the names that a Go file declares, methods as Type.Method.
func declarations(t *testing.T, path string) map[string]bool {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				name = receiver(d.Recv.List[0].Type) + "." + name
			}
			all[name] = true
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.TypeSpec); ok {
					all[s.Name.Name] = true
				}
			}
		}
	}
	return all
}

// receiver returns the name of the type of a receiver.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// TestArchitectureHasAllPackages checks that docs/architecture.md names every package of the module. A package in a
// folder of e2e is part of e2e.
func TestArchitectureHasAllPackages(t *testing.T) {
	page, packages := readPage(t, "../docs/architecture.md"), map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "testdata" || name == "bin" || name != ".." && strings.HasPrefix(name, ".")):
			return fs.SkipDir
		case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
			packages[strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../")] = true
		}
		return nil
	})
	if err != nil || len(packages) < 20 {
		t.Fatalf("got %d packages, %v", len(packages), err)
	}
	for name := range packages {
		if top, _, _ := strings.Cut(name, "/"); top == "e2e" {
			name = top
		}
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/architecture.md does not name the package %s", name)
		}
	}
}
