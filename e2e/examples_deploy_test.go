//go:build unix

package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"go.yaml.in/yaml/v3"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// readYAML reads a file of examples/ into v. Each of its keys must be known.
func readYAML(t testing.TB, name string, v any) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(readFile(t, filepath.Join("../examples", name))))
	decoder.KnownFields(true)
	if err := decoder.Decode(v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// graceOf returns the shutdown_grace of a configuration.
func graceOf(t testing.TB, config string) string {
	t.Helper()
	file, diags := hclwrite.ParseConfig([]byte(config), "", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return textOf(file.Body(), "shutdown_grace")
}

// mustExceed fails the test unless the first duration is longer. A supervisor that kills Lictor must wait longer than
// Lictor waits for its connections.
func mustExceed(t testing.TB, one, other string) {
	t.Helper()
	long, err := time.ParseDuration(one)
	must(t, err)
	short, err := time.ParseDuration(other)
	must(t, err)
	if long <= short {
		t.Errorf("got %v and %v, want the first to be longer", long, short)
	}
}

// The two containers of the example are the same, and have the configuration beside them.
func TestExampleContainer(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	var compose struct {
		Services map[string]struct {
			Image           string
			NetworkMode     string `yaml:"network_mode"`
			Volumes, Tmpfs  []string
			StopGracePeriod string `yaml:"stop_grace_period"`
			Restart         string
			ReadOnly        bool     `yaml:"read_only"`
			CapDrop         []string `yaml:"cap_drop"`
			SecurityOpt     []string `yaml:"security_opt"`
			Ulimits         map[string]int
		}
		Volumes map[string]struct{}
	}
	readYAML(t, "container/compose.yaml", &compose)
	docker, grace := compose.Services["lictor"], graceOf(t, readFile(t, "../examples/container/lictor.hcl"))
	mustExceed(t, docker.StopGracePeriod, grace)
	if docker.NetworkMode != "host" || !slices.Contains(docker.Volumes, "/etc/lictor:/etc/lictor:ro") {
		t.Errorf("compose.yaml has the network %q and the volumes %q", docker.NetworkMode, docker.Volumes)
	}

	podman := map[string][]string{} // values by key
	for line := range strings.Lines(readFile(t, "../examples/container/lictor.container")) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			podman[key] = append(podman[key], value)
		}
	}
	for key, want := range map[string]string{
		"Image": "localhost/" + docker.Image, "Network": "host", "ReadOnly": "true", "Tmpfs": docker.Tmpfs[0],
		"Volume": "/etc/lictor:/etc/lictor:ro,z",
	} {
		if !slices.Contains(podman[key], want) {
			t.Errorf("lictor.container has %s=%q, want %s", key, podman[key], want)
		}
	}
	stop := podman["StopTimeout"][0] + "s"
	mustExceed(t, stop, grace)
	mustExceed(t, podman["TimeoutStopSec"][0]+"s", stop)

	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := runLictor(t, readExample(t, c, "container/lictor.hcl", func(file *hclwrite.Body) {
		setText(file, "state_dir", t.TempDir())
	}))
	awaitRotation(t, l.addr(t, "web"), "a")
}

// inner returns the body of the block of a type in the body of another block.
func inner(t testing.TB, body *hclsyntax.Body, types ...string) *hclsyntax.Body {
	t.Helper()
	for _, name := range types {
		i := slices.IndexFunc(body.Blocks, func(b *hclsyntax.Block) bool { return b.Type == name })
		if i < 0 {
			t.Fatalf("there is no block %s", name)
		}
		body = body.Blocks[i].Body
	}
	return body
}

// valueOf returns the value of an argument that is a text without variables.
func valueOf(t testing.TB, body *hclsyntax.Body, name string) string {
	t.Helper()
	value, diags := body.Attributes[name].Expr.Value(nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return value.AsString()
}

// The configuration in the job is one of Lictor once Nomad has filled the template, and Lictor registers itself.
func TestExampleNomad(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	text := readFile(t, "../examples/nomad/lictor.nomad.hcl")
	file, diags := hclsyntax.ParseConfig([]byte(text), "lictor.nomad.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	job := inner(t, file.Body.(*hclsyntax.Body), "job")
	task := inner(t, job, "group", "task")
	if kind := valueOf(t, job, "type"); kind != "system" {
		t.Errorf("got the type %q", kind)
	}
	env := map[string]string{"NOMAD_ALLOC_DIR": t.TempDir()}
	filled, err := template.New("").Funcs(template.FuncMap{"env": func(name string) string { return env[name] }}).
		Parse(valueOf(t, inner(t, task, "template"), "data"))
	must(t, err)
	var config strings.Builder
	must(t, filled.Execute(&config, nil))
	mustExceed(t, valueOf(t, task, "kill_timeout"), graceOf(t, config.String()))

	c := startConsul(t, testconsul.Options{})
	a := startEcho(t, "a")
	c.register(t, "web", "a", a.addr)
	l := runLictor(t, adapt(t, c, config.String()))
	awaitRotation(t, l.addr(t, "web"), "a")
	c.own(t, "passing")
	awaitSaved(t, filepath.Join(env["NOMAD_ALLOC_DIR"], "data", "lictor"), a.addr.String())
}

// The tasks of the role notify handlers that it has, and its playbook has a configuration that works.
func TestExampleAnsible(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	var tasks, handlers []map[string]any
	readYAML(t, "ansible/roles/lictor/tasks/main.yml", &tasks)
	readYAML(t, "ansible/roles/lictor/handlers/main.yml", &handlers)
	validates := 0
	for _, task := range tasks {
		if handler := task["notify"]; handler != nil &&
			!slices.ContainsFunc(handlers, func(h map[string]any) bool { return h["name"] == handler }) {
			t.Errorf("%v notifies %v, which is no handler", task["name"], handler)
		}
		if copied, _ := task["ansible.builtin.copy"].(map[string]any); copied["dest"] == "/etc/lictor/lictor.hcl" &&
			copied["validate"] == "/usr/bin/lictor validate %s" && copied["content"] == "{{ lictor_configuration }}" {
			validates++
		}
	}
	if validates != 1 {
		t.Errorf("%d tasks write lictor_configuration after Lictor has validated it, want 1", validates)
	}
	var plays []struct {
		Hosts  string
		Become bool
		Roles  []struct {
			Role string
			Vars map[string]string
		}
	}
	readYAML(t, "ansible/site.yml", &plays)
	role := plays[0].Roles[0]
	if role.Role != "lictor" {
		t.Errorf("the playbook has the role %q", role.Role)
	}
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := runLictor(t, adapt(t, c, role.Vars["lictor_configuration"], func(file *hclwrite.Body) {
		setText(file, "state_dir", t.TempDir())
	}))
	awaitRotation(t, l.addr(t, "web"), "a")
}
