package testcgroup

import (
	"os"
	"testing"
)

func TestProcessEntersAndLeaves(t *testing.T) {
	g := Make(t)
	before, err := own()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Enter(); err != nil {
		t.Fatal(err)
	}
	if got, err := own(); got != g.Name {
		t.Errorf("in %s, %v, want %s", got, err, g.Name)
	}
	if err := g.Leave(); err != nil {
		t.Fatal(err)
	}
	if got, err := own(); got != before {
		t.Errorf("in %s, %v, want %s", got, err, before)
	}
	if err := Remove(g.Name); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(g.path); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", g.path, err)
	}
}
