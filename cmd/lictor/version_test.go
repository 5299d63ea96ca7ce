package main

import (
	"encoding/json"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestVersionString(t *testing.T) {
	t.Parallel()
	b := build{Version: "v0.1.0", Revision: "0123456789abcdef", Go: "go1.26.0", OS: "linux", Arch: "amd64"}
	equal(t, b.String(), "lictor v0.1.0 (0123456789ab, go1.26.0 linux/amd64)")
	b.Modified = true
	equal(t, b.String(), "lictor v0.1.0 (0123456789ab+changes, go1.26.0 linux/amd64)")
	b.Revision = "01ab"
	equal(t, b.String(), "lictor v0.1.0 (01ab+changes, go1.26.0 linux/amd64)")
	b.Revision = "" // without a revision, changes are not shown
	equal(t, b.String(), "lictor v0.1.0 (go1.26.0 linux/amd64)")
}

func TestVersionJSON(t *testing.T) {
	t.Parallel()
	out, _ := lictor(t, exitOK, "version", "-json")
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 6 || got["version"] != version || got["go"] != runtime.Version() || got["os"] != runtime.GOOS ||
		got["arch"] != runtime.GOARCH {
		t.Errorf("got %s", out)
	}
	for _, name := range []string{"revision", "modified"} {
		if _, ok := got[name]; !ok {
			t.Errorf("no %q in %s", name, out)
		}
	}
}

// The linker's values have precedence over those of "go install module@version" and of "go build" in a clone.
func TestBuildInformation(t *testing.T) {
	t.Parallel()
	module := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}
	}
	clone := []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"},
		{Key: "vcs.time", Value: "2026"}}
	tests := []struct {
		name              string
		version, revision string // set by the linker
		info              *debug.BuildInfo
		want              build
	}{
		{"nothing is known", "dev", "", module(""), build{Version: "dev"}},
		{"a release", "v1", "123", module("(devel)"), build{Version: "v1", Revision: "123"}},
		{"a release of a module", "v1", "123", module("v2"), build{Version: "v1", Revision: "123"}},
		{"go install", "dev", "", module("v2"), build{Version: "v2"}},
		{"go build", "dev", "", module("(devel)", clone...), build{Version: "dev", Revision: "abc", Modified: true}},
		{"go build of a tag", "dev", "", module("v2", clone...),
			build{Version: "dev", Revision: "abc", Modified: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := build{Version: tt.version, Revision: tt.revision}
			got.addInfo(tt.info)
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}
