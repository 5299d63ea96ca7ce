package hostport

import (
	"strings"
	"testing"
)

func TestIsHostName(t *testing.T) {
	label := strings.Repeat("a", maxLabel)
	long := strings.Join([]string{label, label, label, label[:maxName-3*maxLabel-3]}, ".")
	for _, tt := range []struct {
		name string
		want bool
	}{
		{"localhost", true},
		{"db.example.com", true},
		{"db.example.com.", true},
		{"DB-1.Example.com", true},
		{"_db._tcp.service.consul", true},
		{"a", true},
		{"1.example.com", true},
		{"1a", true},
		{label, true},
		{long, true},

		{"", false},
		{".", false},
		{"db..example.com", false},
		{".example.com", false},
		{"db.example.com..", false},
		{"-db", false},
		{"db-", false},
		{"a.-b.c", false},
		{"db example", false},
		{"db/x", false},
		{"dbé", false},
		{"10.0.0.5", false},
		{"10.0.0", false},
		{"web.1", false},
		{"2001:db8::7", false},
		{label + "a", false},
		{long + "a", false},
	} {
		if got := IsHostName(tt.name); got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
