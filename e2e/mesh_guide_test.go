//go:build unix

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// guideFence matches the commands of a guide, and what they must print. What is in a terminal of its own keeps running.
var guideFence = regexp.MustCompile("(?ms)^```(sh|sh terminal|text)\n(.*?)^```$")

// The guide of docs/mesh.md works as it is written. Only the ports are others, and the agent has been started.
func TestMeshGuide(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	for _, tool := range []string{"bash", "python3", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			testproc.Cannot(t, tool+" is missing", err)
		}
	}
	g := newGuide(t)
	text := readFile(t, "../docs/mesh.md")
	block, _ := meshAt(t, 1)
	text = strings.ReplaceAll(text, `mesh { bind = "127.0.0.1" }`, block)
	for _, port := range []string{"8080", "8081", "21000", "9100", "9102"} {
		text = strings.ReplaceAll(text, port, fmt.Sprint(freePort(t).Port()))
	}
	steps := guideFence.FindAllStringSubmatch(text, -1)
	if len(steps) < 10 {
		t.Fatalf("%d steps are found; does this test look in the right way?", len(steps))
	}
	for n, step := range steps {
		switch kind, commands := step[1], step[2]; {
		case strings.HasPrefix(commands, "consul agent"): // it runs
		case kind == "sh terminal":
			g.keepRunning(t, commands)
		case kind == "sh":
			var want string
			if n+1 < len(steps) && steps[n+1][1] == "text" {
				want = steps[n+1][2]
			}
			g.run(t, commands, want)
		}
	}
}

// A guide is where its commands run.
type guide struct {
	dir string
	env []string
}

func newGuide(t *testing.T) *guide {
	t.Helper()
	c := startConsul(t, testconsul.Options{})
	g := &guide{dir: t.TempDir()}
	bin := t.TempDir()
	must(t, os.Symlink(consulBinary, filepath.Join(bin, "consul")))
	must(t, os.Symlink(lictorPath(t), filepath.Join(bin, "lictor")))
	g.env = append(environment(), "PATH="+bin+":"+os.Getenv("PATH"), "CONSUL_HTTP_ADDR="+c.HTTP,
		"RUNTIME_DIRECTORY="+shortTempDir(t))
	return g
}

func (g *guide) command(commands string) *exec.Cmd {
	cmd := exec.Command("bash", "-c", commands)
	cmd.Dir, cmd.Env = g.dir, g.env
	return cmd
}

// keepRunning runs a command until the test ends.
func (g *guide) keepRunning(t *testing.T, command string) {
	t.Helper()
	log := &testproc.Log{}
	cmd := g.command("exec " + command)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := testproc.Start(cmd)
	must(t, err)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s\n%s", command, log.Tail(30))
		}
	})
}

// run runs commands until they succeed and print what they must, as a reader does who waits a moment.
func (g *guide) run(t *testing.T, commands, want string) {
	t.Helper()
	eventually(t, commands, func() error {
		out, err := g.command(commands).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		got := strings.Join(strings.Fields(string(out)), " ")
		for line := range strings.Lines(want) {
			if line = strings.TrimSpace(line); !strings.Contains(got, line) {
				return fmt.Errorf("no %q in:\n%s", line, out)
			}
		}
		return nil
	})
}
