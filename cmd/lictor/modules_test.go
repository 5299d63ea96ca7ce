package main

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const modulesFile = "testdata/modules.txt"

// listedModules returns the modules in modulesFile, and the licences of each.
func listedModules(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(modulesFile)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, ", ", 3) // module, licences, purpose
		if _, twice := all[fields[0]]; twice || len(fields) < 3 {
			t.Errorf("%s: %q must be MODULE, LICENCE, PURPOSE, once for each module", modulesFile, line)
			continue
		}
		all[fields[0]] = strings.Split(fields[1], " AND ")
	}
	return all
}

// A built module is in the binary.
type built struct{ folder, importer string }

// builtModules returns the modules of the packages in the binary for linux/amd64, without that of lictor.
func builtModules(t *testing.T) map[string]built {
	t.Helper()
	list := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Module", ".")
	list.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	type module struct {
		Path, Dir string
		Main      bool
	}
	all := map[string]built{}
	importers := map[string]string{} // for each module one package of another module that imports it
	modules := map[string]*module{}  // of each package; go list prints a package after all that it imports
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
			Module     *module
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		modules[p.ImportPath] = p.Module
		if p.Module != nil && !p.Module.Main {
			all[p.Module.Path] = built{folder: p.Module.Dir}
		}
		for _, imported := range p.Imports {
			if m := modules[imported]; m != nil && p.Module != nil && m.Path != p.Module.Path {
				importers[m.Path] = p.ImportPath
			}
		}
	}
	for path, m := range all {
		m.importer = importers[path]
		all[path] = m
	}
	return all
}

// The binary has exactly the modules that are listed. A new dependency is a decision, and not an accident.
func TestModulesOfTheBinary(t *testing.T) {
	t.Parallel()
	want, got := listedModules(t), builtModules(t)
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[path]; !ok {
			t.Errorf("%s is new in the binary; %s imports it.\nAdd it to %s if it is needed, alive (see "+
				"go list -m -json %[1]s@latest), not archived, and its licence is allowed. Otherwise do not import it.",
				path, got[path].importer, modulesFile)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if _, ok := got[path]; !ok {
			t.Errorf("%s is not in the binary any more: delete its line in %s", path, modulesFile)
		}
	}
}

// Each module in the binary has the licence that is listed.
func TestLicencesOfTheBinary(t *testing.T) {
	t.Parallel()
	phrases := map[string]string{ // for each licence that is allowed, what its text has and no other's
		"Apache-2.0":       "Apache License Version 2.0, January 2004",
		"BSD-3-Clause":     "Redistributions in binary form must reproduce the above copyright notice",
		"MIT":              "Permission is hereby granted, free of charge, to any person obtaining a copy of this",
		"MPL-2.0":          "Mozilla Public License, version 2.0",
		"Unicode-DFS-2016": "obtaining a copy of the Unicode data files",
	}
	modules := builtModules(t)
	for path, licences := range listedModules(t) {
		files, err := filepath.Glob(filepath.Join(modules[path].folder, "LICENSE*"))
		if err != nil || len(files) == 0 || modules[path].folder == "" {
			t.Errorf("%s: no LICENSE was found: %v", path, err)
			continue
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		oneLine := strings.Join(strings.Fields(string(text)), " ")
		for _, licence := range licences {
			if phrase := phrases[licence]; phrase == "" || !strings.Contains(oneLine, phrase) {
				t.Errorf("%s: %s does not have the text of %q. See whether the module's licence has changed.",
					path, files[0], licence)
			}
		}
	}
}
