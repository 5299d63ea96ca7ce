package accesslog

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/proxy"
)

// section returns the part of docs/operations.md about the access log.
func section(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text2, found := strings.Cut(string(text), "\n## Access log\n")
	if !found {
		t.Fatal("docs/operations.md has no section about the access log")
	}
	part, _, _ := strings.Cut(text2, "\n## ")
	return part
}

// rows returns the first cells of the table of docs/operations.md whose header begins with the given cell.
func rows(t *testing.T, header string) (cells []string) {
	t.Helper()
	_, table, found := strings.Cut(section(t), "\n| "+header+" |")
	if !found {
		t.Fatalf("docs/operations.md has no table of each %s", header)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	for _, line := range strings.Split(table, "\n")[2:] {
		first, _, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first, -1) {
			cells = append(cells, m[1])
		}
	}
	return cells
}

// everyField returns records that have every field between them.
func everyField() []proxy.AccessRecord {
	served, unserved, session := sampleRecord(), sampleRecord(), sampleRecord()
	served.Reason, served.Err = proxy.ReasonClientFailed, syscall.ECONNRESET
	unserved.Reason, unserved.Refused = proxy.ReasonUnserved, "full"
	session.Protocol = proxy.UDP
	served.TLS = &proxy.TLSPeer{Version: tls.VersionTLS13, ServerName: "a", Protocol: "b",
		Certificate: &x509.Certificate{Subject: pkix.Name{CommonName: "c"},
			URIs: []*url.URL{{Scheme: "spiffe", Host: "d", Path: "/e"}}}}
	return []proxy.AccessRecord{served, unserved, session}
}

// The table of fields in docs/operations.md has each field of a line of JSON, in the order of the line, and each name
// of a line of text.
func TestFieldsAreDocumented(t *testing.T) {
	documented := rows(t, "field")
	seen := map[string]bool{}
	for _, r := range everyField() {
		line, last := appendJSON(nil, &r), -1
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`[{,]"([a-z_]+)":`).FindAllSubmatch(line, -1) {
			field := string(m[1])
			at := slices.Index(documented, field)
			if at <= last {
				t.Errorf("%s is row %d of the table, after row %d", field, at, last)
			}
			seen[field], last = true, at
			delete(fields, field)
		}
		if len(fields) > 0 {
			t.Errorf("the test has not seen %v in %s", fields, line)
		}
		for _, m := range regexp.MustCompile(` ([a-z_]+)=`).FindAllSubmatch(appendText(nil, &r), -1) {
			if !seen[string(m[1])] {
				t.Errorf("text has %s, JSON has not", m[1])
			}
		}
	}
	for _, field := range documented {
		if !seen[field] {
			t.Errorf("%s is documented, and no line has it", field)
		}
	}
}

// The table of ends has each reason that package proxy gives, and no other.
func TestEndsAreDocumented(t *testing.T) {
	source, err := os.ReadFile("../../proxy/access.go")
	if err != nil {
		t.Fatal(err)
	}
	ends := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\tReason\w+ += "([^"]+)"`).FindAllSubmatch(source, -1) {
		ends[string(m[1])] = true
	}
	got, want := slices.Sorted(slices.Values(rows(t, "end"))), slices.Sorted(maps.Keys(ends))
	if len(want) < 10 || !slices.Equal(got, want) {
		t.Errorf("docs/operations.md has %q, want %q", got, want)
	}
}
