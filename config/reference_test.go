package config

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

const reference = "../docs/configuration.md"

// An argumentDoc is the description of one argument in docs/configuration.md: a heading with its name, a list with the
// fields below, and text.
type argumentDoc struct {
	section string // its block, as in sections
	name    string
	fields  map[string]string
	text    string
}

// sections maps the headings in docs/configuration.md to their schemas.
func sections() map[string]*hcl.BodySchema {
	return map[string]*hcl.BodySchema{
		"Top level": rootSchema(), "`admin`": adminSchema(), "`access_log`": accessLogSchema(),
		"`metrics`": metricsSchema(),
		"`consul`":  consulSchema(), "`consul` > `tls`": tlsSchema(),
		"`service \"NAME\"`": serviceSchema(), "`service` > `consul`": querySchema(),
		"`service` > `static`": staticSchema(), "`service` > `check`": checkSchema(),
		"`service` > `check` > `tls`": tlsSchema(),
		"`service` > `accept_proxy`":  acceptProxySchema(), "`service` > `tls`": acceptTLSSchema(),
		"`service` > `tls` > `certificate`": certificateSchema(), "`service` > `endpoint_tls`": endpointTLSSchema(),
		"`service` > `mesh`": meshSchema(),
		"`mesh`":             meshServerSchema(), "`expose \"NAME\"`": exposeSchema(),
		"`service` > `on_leave`": onLeaveSchema(), "`service` > `consul` > `hold_max`": holdMaxSchema(),
	}
}

// readReference returns the arguments in docs/configuration.md, in order.
func readReference(t *testing.T) []*argumentDoc {
	t.Helper()
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	var all []*argumentDoc
	var section string
	var doc *argumentDoc
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch field, value, isField := strings.Cut(strings.TrimPrefix(line, "- "), ": "); {
		case strings.HasPrefix(line, "## "):
			section, doc = strings.TrimPrefix(line, "## "), nil
		case strings.HasPrefix(line, "### "):
			name := strings.Trim(strings.TrimPrefix(line, "### "), "`")
			doc = &argumentDoc{section: section, name: name, fields: map[string]string{}}
			all = append(all, doc)
		case doc == nil:
		case strings.HasPrefix(line, "- ") && isField && doc.text == "":
			doc.fields[field] = value
		default:
			doc.text += line
		}
	}
	return all
}

// TestReferenceIsComplete holds docs/configuration.md, of which the manual page lictor.hcl(5) is made, to the
// language: each argument is there, once, in the section of its block, and nothing else is.
func TestReferenceIsComplete(t *testing.T) {
	documented := map[string]bool{}
	for _, doc := range readReference(t) {
		key := doc.section + ": " + doc.name
		if documented[key] {
			t.Errorf("%s: there are two headings \"### `%s`\" in the section \"## %s\"; remove one",
				reference, doc.name, doc.section)
		}
		documented[key] = true
		for _, field := range []string{"Type", "Default", "Example"} {
			if doc.fields[field] == "" {
				t.Errorf("%s: %s has no line \"- %s: ...\" below its heading", reference, key, field)
			}
		}
		if doc.text == "" {
			t.Errorf("%s: %s has no text that says what it means", reference, key)
		}
		block := strings.NewReplacer("Top level", "top level", ` "NAME"`, "").Replace(doc.section)
		if doc.fields["May be used in"] != block {
			t.Errorf("%s: %s has no line \"- May be used in: %s\"", reference, key, block)
		}
	}
	inSchema := map[string]bool{}
	for section, schema := range sections() {
		for _, a := range schema.Attributes {
			inSchema[section+": "+a.Name] = true
			if !documented[section+": "+a.Name] {
				t.Errorf("%s does not have the argument %s. Add to its section \"## %s\":\n\n### `%s`\n\n"+
					"- Type: duration\n- Default: `\"1s\"`\n- May be used in: ...\n- Example: `%s = \"5s\"`\n\n"+
					"What it means.\n\nand look at its neighbours for how types are written",
					reference, a.Name, section, a.Name, a.Name)
			}
		}
		for _, b := range schema.Blocks {
			ofType := func(heading string) bool { return strings.Contains(heading, "`"+b.Type) }
			if !slices.ContainsFunc(mapKeys(sections()), ofType) {
				t.Errorf("the block %s has no section: add its schema to sections in reference_test.go, and \"## "+
					"`%s`\" with its arguments to %s", b.Type, b.Type, reference)
			}
		}
	}
	for key := range documented {
		if !inSchema[key] {
			t.Errorf("%s has %s, which config/schema.go does not have: remove it there, or correct its name or "+
				"section", reference, key)
		}
	}
}

func mapKeys[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

// TestReferenceIsTrue checks what docs/configuration.md says of each argument against what Load does with it.
func TestReferenceIsTrue(t *testing.T) {
	files := referenceFiles(t)
	for _, doc := range readReference(t) {
		t.Run(doc.section+"/"+doc.name, func(t *testing.T) {
			w := world{doc: doc, files: files, t: t}
			w.example()
			w.defaults()
			w.typed()
			w.variable()
		})
	}
}

// A world is the configuration in which one argument is tried.
type world struct {
	doc   *argumentDoc
	files func(text string) string
	t     *testing.T
}

var quoted = regexp.MustCompile("``([^\n]+)``|`([^`\n]+)`")

// code returns what stands in backquotes.
func code(text string) (all []string) {
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		all = append(all, cmp.Or(m[1], m[2]))
	}
	return all
}

// load loads a configuration in which the argument's block has these lines, and what the argument needs beside it.
func (w *world) load(env map[string]string, protocol string, lines ...string) (*Config, Diagnostics) {
	lines = append(code(w.doc.fields["Together with"]), lines...)
	inner, listen := strings.Join(lines, "\n"), "listen = 9000"
	if w.doc.section == "`service \"NAME\"`" && w.doc.name == "listen" {
		listen = ""
	}
	if protocol != "" && w.doc.name != "protocol" {
		listen += fmt.Sprintf("\nprotocol = %q", protocol)
	}
	const service = "service \"web\" {\n%s\n%s\n}\n"
	var text string
	switch w.doc.section {
	case "Top level":
		text = inner + "\n" + fmt.Sprintf(service, listen, "")
	case "`consul` > `tls`":
		text = "consul {\naddress = \"https://127.0.0.1:8501\"\ntls {\n" + inner + "\n}\n}\n" +
			fmt.Sprintf(service, listen, "")
	case "`service` > `check` > `tls`":
		text = fmt.Sprintf(service, listen, "check {\nhttp = \"/health\"\ntls {\n"+inner+"\n}\n}")
	case "`service \"NAME\"`":
		text = fmt.Sprintf(service, listen, inner)
	case "`expose \"NAME\"`":
		text = "mesh { bind = \"10.0.0.5\" }\nexpose \"web\" {\n" + inner + "\n}\n" + fmt.Sprintf(service, listen, "")
	default:
		blocks := strings.Split(strings.ReplaceAll(w.doc.section, "`", ""), " > ")
		outer := blocks[0]
		if nested := blocks[1:]; len(nested) > 0 {
			for _, block := range slices.Backward(nested) {
				inner = block + " {\n" + inner + "\n}"
			}
			text = fmt.Sprintf(service, listen, inner)
		} else {
			text = outer + " {\n" + inner + "\n}\n" + fmt.Sprintf(service, listen, "")
		}
	}
	cfg, diags := loadText(w.files(text), env)
	if cfg != nil { // places in the text are not part of the meaning
		for i := range cfg.Expose {
			cfg.Expose[i].DeclRange = hcl.Range{}
		}
		for i := range cfg.Services {
			s := &cfg.Services[i]
			s.DeclRange, s.TimeoutRange = hcl.Range{}, hcl.Range{}
			if s.Consul != nil {
				s.Consul.FilterRange = hcl.Range{}
			}
		}
	}
	return cfg, diags
}

// alone returns w without the arguments that the documented argument needs beside it.
func (w *world) alone() *world {
	doc := &argumentDoc{section: w.doc.section, name: w.doc.name, fields: map[string]string{}}
	return &world{doc: doc, files: w.files, t: w.t}
}

// mustLoad loads a configuration that must be valid.
func (w *world) mustLoad(why, protocol string, lines ...string) *Config {
	w.t.Helper()
	cfg, diags := w.load(nil, protocol, lines...)
	if cfg == nil {
		w.t.Fatalf("%s: its %s is not valid. If the argument needs another one beside it, say so in a "+
			"line \"- Together with: `other = ...`\", "+
			"and if it is for one protocol only, in a line \"- For: UDP\":\n%s", reference, why, textOf(diags))
	}
	return cfg
}

// protocol returns the protocol that the argument is for, or "" if it is for both.
func (w *world) protocol() string { return strings.ToLower(w.doc.fields["For"]) }

func equal(a, b *Config) bool { return reflect.DeepEqual(a, b) }

// required reports whether the documentation says that the argument is required.
func (w *world) required() bool { return strings.Contains(w.doc.fields["Default"], "required") }

// example checks that the documented example is valid and differs from the default.
func (w *world) example() {
	with := w.mustLoad("example", w.protocol(), code(w.doc.fields["Example"])...)
	without, _ := w.load(nil, w.protocol())
	if without == nil { // of two arguments that need each other, the other cannot be alone either
		without, _ = w.alone().load(nil, w.protocol())
	}
	switch {
	case w.required() && without != nil:
		w.t.Errorf("%s: %s is described as required, but is not", reference, w.doc.name)
	case !w.required() && without == nil:
		w.t.Errorf("%s: %s is required, but not described as required", reference, w.doc.name)
	case without != nil && equal(with, without):
		w.t.Errorf("%s: the example of %s is the same as the default; take another value",
			reference, w.doc.name)
	}
}

var defaultFor = regexp.MustCompile("`([^`]+)` \\((TCP|UDP)\\)")

// defaults checks that what stands as default means the same as leaving the argument out.
func (w *world) defaults() {
	values := map[string]string{}
	for _, m := range defaultFor.FindAllStringSubmatch(w.doc.fields["Default"], -1) {
		values[strings.ToLower(m[2])] = m[1]
	}
	if text := w.doc.fields["Default"]; len(values) == 0 && strings.HasPrefix(text, "`") {
		values[w.protocol()] = code(text)[0]
	}
	for protocol, value := range values {
		with, without := w.mustLoad("default", protocol, w.doc.name+" = "+value), w.mustLoad("default", protocol)
		if !equal(with, without) {
			w.t.Errorf("%s: the default of %s is described as %s, but that is not so. The default is in "+
				"config/config.go", reference, w.doc.name, value)
		}
	}
}

var (
	wholeNumber = regexp.MustCompile("^whole number from (\\d+) to (\\d+)(, or `never`)?$")
	oneOf       = regexp.MustCompile("^one of (`[a-z0-9_.]+`(, )?)+$")
)

// typed checks that the documented type is the argument's type.
func (w *world) typed() {
	var good, bad []string
	kind := w.doc.fields["Type"]
	switch m := wholeNumber.FindStringSubmatch(kind); {
	case m != nil:
		least, _ := strconv.Atoi(m[1])
		most, _ := strconv.Atoi(m[2])
		good, bad = []string{m[1], m[2]}, []string{fmt.Sprint(least - 1), fmt.Sprint(most + 1), "1.5", `"many"`}
		if m[3] == "" {
			bad = append(bad, `"never"`)
		} else {
			good, bad = append(good, `"never"`), append(bad, "never", `"Never"`)
		}
	case oneOf.MatchString(kind):
		for _, name := range code(kind) {
			good = append(good, strconv.Quote(name))
		}
		bad = []string{`"nonsense"`, "5"}
	case kind == "duration":
		good, bad = []string{`"90s"`, `"1500ms"`, `"0s"`}, []string{"5", `"5"`, `"-1s"`, `"never"`}
	case kind == "duration above zero, or `never`":
		good, bad = []string{`"90s"`, `"1500ms"`}, []string{"5", `"5"`, `"-1s"`, `"0s"`, "never", `"Never"`}
		if len(defaultFor.FindAllString(w.doc.fields["Default"], -1)) == 0 {
			good = append(good, `"never"`)
		}
	case kind == "duration above zero":
		good, bad = []string{`"90s"`, `"1500ms"`}, []string{"5", `"5"`, `"-1s"`, `"0s"`, `"never"`}
	case kind == "`finish`, `cut`, or a duration above zero":
		good, bad = []string{`"finish"`, `"cut"`, `"90s"`}, []string{"5", `"5"`, `"-1s"`, `"0s"`, `"keep"`, "true"}
	case kind == "percentage":
		good, bad = []string{`"0%"`, `"100%"`}, []string{`"101%"`, "50", `"50"`}
	case kind == "true or false":
		good, bad = []string{"true", "false"}, []string{`"maybe"`, "5"}
	case kind == "text" || strings.HasPrefix(kind, "text, "):
		bad = []string{"5", "true", `""`, `["a"]`}
	case strings.HasPrefix(kind, "list of "):
		bad = []string{"5", `"a"`, `[""]`, "[5]"}
	case strings.HasPrefix(kind, "address"):
		bad = []string{`"nonsense:x"`, "true", "-1"}
	default:
		w.t.Fatalf("%s: %s is of the type %q, which reference_test.go does not know. Write one that the neighbours "+
			"have, or have typed know it", reference, w.doc.name, kind)
	}
	for _, value := range good {
		if cfg, diags := w.load(nil, w.protocol(), w.doc.name+" = "+value); len(diags.Diagnostics) > 0 || cfg == nil {
			w.t.Errorf("%s: by its type %q, %s may be %s, but:\n%s", reference, kind, w.doc.name, value, textOf(diags))
		}
	}
	for _, value := range bad {
		if _, diags := w.load(nil, w.protocol(), w.doc.name+" = "+value); len(diags.Diagnostics) == 0 {
			w.t.Errorf("%s: by its type %q, %s must not be %s, but Load accepts it", reference, kind, w.doc.name, value)
		}
	}
}

// variable checks that the documented environment variable has the same effect as the argument.
func (w *world) variable() {
	if w.doc.fields["Variable"] == "" {
		return
	}
	env := map[string]string{}
	for _, doc := range readReference(w.t) { // the arguments that it needs beside it have variables too
		if example := code(doc.fields["Example"])[0]; doc == w.doc || doc.name == w.doc.name ||
			slices.Contains(code(w.doc.fields["Together with"]), example) {
			if name := doc.fields["Variable"]; name != "" && doc.section == w.doc.section {
				_, value, _ := strings.Cut(example, " = ")
				value, _ = strconv.Unquote(value)
				env[code(name)[0]] = w.files(value)
			}
		}
	}
	want := w.mustLoad("example", "", code(w.doc.fields["Example"])...)
	got, diags := w.alone().load(env, "")
	if got == nil || !equal(got, want) {
		w.t.Errorf("%s: the variables %v are described as equal to %s, but that is not so:\n%s", reference,
			mapKeys(env), w.doc.name, textOf(diags))
	}
}

// referenceFiles creates the files that the examples name. It returns a function that replaces their paths in a text.
func referenceFiles(t *testing.T) func(text string) string {
	file := writeFiles(t)
	dir := filepath.Dir(file("token"))
	return strings.NewReplacer(
		"/etc/lictor/admin-token", file("token"), "/etc/lictor/token", file("token"),
		"/etc/lictor/ca.pem", file("one.crt"), "/etc/lictor/ca.d", dir, "/etc/lictor/cert.pem", file("one.crt"),
		"/etc/lictor/key.pem", file("one.key"),
	).Replace
}
