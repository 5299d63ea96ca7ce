package config

import (
	"fmt"
	"strings"
	"testing"
)

// Text of the configuration is repeated in logs, metrics, queries and datagrams. Its length is therefore limited, and a
// message about text that is too long does not repeat the text.
func TestTextIsBounded(t *testing.T) {
	text := func(n int) string { return fmt.Sprintf("%q", strings.Repeat("a", n)) }
	list := func(n int) string {
		var tags []string
		for i := range n {
			tags = append(tags, fmt.Sprintf("%q", fmt.Sprint("tag", i)))
		}
		return "[" + strings.Join(tags, ",") + "]"
	}
	for _, tt := range []struct {
		name    string
		service string // the body of the service, where %s is replaced by text
		value   func(n int) string
		most    int
		problem string
	}{
		{"service", "consul { service = %s }", text, maxConsulName, "Text too long"},
		{"datacenter", "consul { datacenter = %s }", text, maxConsulName, "Text too long"},
		{"peer", "consul { peer = %s }", text, maxConsulName, "Text too long"},
		{"prepared_query", "consul { prepared_query = %s }", text, maxConsulName, "Text too long"},
		{"near", "consul { near = %s }", text, maxConsulName, "Text too long"},
		{"filter", "consul { filter = %s }", text, maxFilter, "Text too long"},
		{"a tag", "consul { tags = [%s] }", text, maxConsulName, "Text too long"},
		{"a datacenter", "consul { datacenters = [%s] }", text, maxConsulName, "Text too long"},
		{"tags", "consul { tags = %s }", list, maxTags, "Too many tags"},
		{"send", "protocol = \"udp\"\n check {\n send = %s\n expect = \"x\"\n }", text, maxText, "Text too long"},
		{"expect", "protocol = \"udp\"\n check {\n send = \"x\"\n expect = %s\n }", text, maxText, "Text too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := func(n int) string {
				return "service \"web\" {\n listen = 9000\n " + fmt.Sprintf(tt.service, tt.value(n)) + "\n}\n"
			}
			mustLoad(t, config(tt.most), nil)
			_, diags := loadText(config(tt.most+1), nil)
			if len(diags.Diagnostics) != 1 || diags.Diagnostics[0].Summary != tt.problem {
				t.Fatalf("got %v, want %q", diags.Diagnostics, tt.problem)
			}
			if detail := diags.Diagnostics[0].Detail; len(detail) > 200 {
				t.Errorf("the message has %d bytes", len(detail))
			}
		})
	}
	_, diags := loadText("log_level = "+text(maxText+1)+"\nservice \"web\" { listen = "+text(1<<20)+" }", nil)
	if n := len(diags.Diagnostics); n != 2 {
		t.Errorf("%d problems, want 2", n)
	}
}
