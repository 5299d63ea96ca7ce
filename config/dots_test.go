package config

import (
	"strings"
	"testing"
)

// A name such as ".." in the path of a URL would request something else.
func TestNamesThatAreFolders(t *testing.T) {
	for _, name := range []string{".", ".."} {
		for _, text := range []string{
			"service \"" + name + "\" {\n  listen = 1\n}",
			"service \"web\" {\n  listen = 1\n  consul { service = \"" + name + "\" }\n}",
			"service \"web\" {\n  listen = 1\n  consul { prepared_query = \"" + name + "\" }\n}",
			"service \"web\" {\n  listen = 1\n  consul { peer = \"" + name + "\" }\n}",
		} {
			cfg, diags := loadText(text, nil)
			if cfg != nil || !strings.Contains(diags.Diagnostics[0].Summary, "name") {
				t.Errorf("%s: got %s", text, textOf(diags))
			}
		}
	}
	if cfg, diags := loadText("service \"...\" { listen = 1 }", nil); cfg == nil {
		t.Errorf("the name \"...\" was refused: %s", textOf(diags))
	}
}
