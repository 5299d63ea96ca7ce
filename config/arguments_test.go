package config

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// shownAs maps an argument to its name in Compare and MarshalJSON, where that differs.
var shownAs = map[string]string{
	"access_log.format":  "access_log.json",
	"admin.listen":       "admin.tcp",
	"on_leave":           "on_leave.deregistered",
	"consul.hold_max":    "consul.hold_max.critical",
	"consul.datacenters": "failover",

	"tls.certificate.cert_file": "tls.certificate",
	"tls.certificate.key_file":  "tls.certificate",
}

// full returns the argument's name in Compare, such as "consul.tls.ca_file".
func (d *argumentDoc) full() string {
	section := strings.TrimPrefix(strings.ReplaceAll(d.section, "`", ""), "service > ")
	name := strings.ReplaceAll(section, " > ", ".") + "." + d.name
	for _, block := range []string{"Top level.", `service "NAME".`, `expose "NAME".`} {
		name = strings.TrimPrefix(name, block)
	}
	if other := shownAs[name]; other != "" {
		return other
	}
	return name
}

// Each argument of the reference is one that plan shows when it changes, that /v1/config shows, and that can be read
// from there, so that plan beside a running lictor sees it.
func TestEachArgumentIsComparedAndShown(t *testing.T) {
	files := referenceFiles(t)
	for _, doc := range readReference(t) {
		t.Run(doc.full(), func(t *testing.T) {
			w := world{doc: doc, files: files, t: t}
			with := w.mustLoad("example", w.protocol(), code(doc.fields["Example"])...)
			without, _ := w.load(nil, w.protocol())
			if without == nil {
				if without, _ = w.alone().load(nil, w.protocol()); without == nil {
					without = &Config{} // the argument is required
				}
			}
			for name, pair := range map[string][2]*Config{"added": {without, with}, "removed": {with, without}} {
				var b strings.Builder
				changes := Compare(pair[0], pair[1])
				if err := changes.Write(&b); err != nil {
					t.Fatal(err)
				}
				if changes.Empty() || name == "added" && !strings.Contains(b.String(), " "+doc.full()+" = ") {
					t.Errorf("%s is missing in the output of Compare:\n%s", name, b.String())
				}
			}
			shown, err := json.Marshal(with)
			if err != nil {
				t.Fatal(err)
			}
			last := doc.full()[strings.LastIndexByte(doc.full(), '.')+1:]
			if !strings.Contains(string(shown), `"`+last+`":`) {
				t.Errorf("no %q in %s", last, shown)
			}
			back := &Config{}
			if err := json.Unmarshal(shown, back); err != nil {
				t.Fatal(err)
			}
			back.AdoptSecrets(with)
			if c := Compare(back, with); !c.Empty() {
				var b strings.Builder
				_ = c.Write(&b)
				t.Errorf("the configuration read back differs:\n%s", b.String())
			}
		})
	}
}

// Nothing in a Config is of a kind that MarshalJSON or Compare does not know.
func TestKindsOfFields(t *testing.T) {
	known := map[reflect.Kind]bool{
		reflect.Bool: true, reflect.Int: true, reflect.Int64: true, reflect.String: true, reflect.Uint8: true,
	}
	var walk func(name string, of reflect.Type)
	walk = func(name string, of reflect.Type) {
		switch {
		case of == reflect.TypeFor[hcl.Range](), of.PkgPath() == "net/netip", known[of.Kind()]:
		case of.Kind() == reflect.Pointer, of.Kind() == reflect.Slice:
			walk(name, of.Elem())
		case of.Kind() == reflect.Struct:
			for i := range of.NumField() {
				walk(name+"."+of.Field(i).Name, of.Field(i).Type)
			}
		default:
			t.Errorf("%s has the kind %s: add that kind to plainValue, setValue and valueText", name, of.Kind())
		}
	}
	walk("Config", reflect.TypeFor[Config]())
}
