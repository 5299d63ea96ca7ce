package admin

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

const alertRules, alertTests = "../../docs/alerts.yml", "testdata/alerts_test.yml"

// promtool runs promtool, which must succeed.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		testproc.Cannot(t, `promtool is missing ("make prometheus" installs it)`, err)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Prometheus's own tool accepts the alert rules, and each alert fires and ends as testdata/alerts_test.yml says.
func TestAlertRules(t *testing.T) {
	promtool(t, "check", "rules", "--lint-fatal", alertRules)
	promtool(t, "test", "rules", alertTests)
}

// Each alert has a test, and says in words what has happened and what to do. No rule names a job, because each operator
// chooses that name.
func TestAlertRulesAreComplete(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	rules, tests := read(alertRules), read(alertTests)
	alerts := strings.Split(rules, "- alert: ")[1:]
	if len(alerts) < 10 {
		t.Errorf("got %d alerts; does this test look in the right way?", len(alerts))
	}
	for _, rule := range alerts {
		name, _, _ := strings.Cut(rule, "\n")
		if !strings.Contains(tests, `{alertname="`+name+`"`) {
			t.Errorf("%s has no test in %s", name, alertTests)
		}
		for _, part := range []string{"severity: (critical|warning|info)", "summary: \"", "description: >-"} {
			if n := len(regexp.MustCompile(part).FindAllString(rule, -1)); n != 1 {
				t.Errorf("%s: %d parts are like %s, want 1", name, n, part)
			}
		}
		if docs := read("../../docs/metrics.md"); !strings.Contains(docs, "| `"+name+"` |") {
			t.Errorf("%s is not in docs/metrics.md", name)
		}
	}
	if strings.Contains(rules, `job="`) || strings.Contains(rules, "job=~") {
		t.Error("a rule names a job")
	}
}
