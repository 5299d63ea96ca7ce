//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"go.yaml.in/yaml/v3"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// Prometheus makes the address of Lictor from what Lictor has registered in Consul, scrapes it with the token, and has
// the alert rules. Debian's Prometheus cannot ask Consul, so the test gives it what Consul says.
func TestExamplePrometheus(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte("a secret\n"), 0o600))
	config := readFile(t, "../examples/prometheus/lictor.hcl") + service("web", endpoints(startEcho(t, "a")))
	runLictor(t, adapt(t, c, config, func(file *hclwrite.Body) {
		admin := file.FirstMatchingBlock("admin", nil).Body()
		setText(admin, "listen", freePort(t).String())
		setText(admin, "token_file", token)
	}))

	var example prometheusConfig
	readYAML(t, "prometheus/prometheus.yml", &example)
	isPackaged(t, "docs/alerts.yml", example.Rules[0])
	rules, err := filepath.Abs("../docs/alerts.yml")
	must(t, err)
	example.Global.Interval, example.Rules = "1s", []string{rules}
	job := &example.Jobs[0]
	if found := job.Consul; len(found) != 1 || !slices.Equal(found[0].Services, []string{"lictor"}) {
		t.Fatalf("the job asks Consul for %v", found)
	}
	job.Consul, job.Authorization["credentials_file"] = nil, token
	c.own(t, "passing")
	entries, _, err := c.api.Catalog().Service("lictor", "", nil)
	must(t, err)
	job.Static = []map[string]any{{"targets": []string{"not.used:80"}, "labels": map[string]string{
		"__meta_consul_node": entries[0].Node, "__meta_consul_address": entries[0].Address,
		"__meta_consul_service_metadata_admin": entries[0].ServiceMeta["admin"],
	}}}
	text, err := yaml.Marshal(example)
	must(t, err)
	p := runPrometheus(t, string(text))
	eventually(t, "Prometheus has metrics of Lictor", func() error {
		time.Sleep(pollPrometheus)
		points := p.query(t, `lictor_build_info{job="lictor"} * on (job, instance) up`)
		if len(points) != 1 || points[0].value != 1 || points[0].labels["instance"] != "test" {
			return fmt.Errorf("got %v", points)
		}
		return nil
	})
	var loaded struct{ Groups []struct{ Rules []any } }
	p.get(t, "/api/v1/rules", &loaded)
	if len(loaded.Groups) == 0 || len(loaded.Groups[0].Rules) < 10 {
		t.Errorf("Prometheus has the rules %v", loaded)
	}
}

// A prometheusConfig is the part of a configuration of Prometheus that the example uses.
type prometheusConfig struct {
	Global struct {
		Interval string `yaml:"scrape_interval"`
	}
	Rules []string `yaml:"rule_files"`
	Jobs  []struct {
		Name   string `yaml:"job_name"`
		Consul []struct {
			Server   string
			Services []string
		} `yaml:"consul_sd_configs,omitempty"`
		Static        []map[string]any  `yaml:"static_configs,omitempty"`
		Authorization map[string]string `yaml:"authorization"`
		Relabel       []map[string]any  `yaml:"relabel_configs"`
	} `yaml:"scrape_configs"`
}

// Grafana finds the dashboard of the package, and has a Prometheus for it.
func TestExampleGrafana(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	var dashboards struct {
		Version   int `yaml:"apiVersion"`
		Providers []struct {
			Name, Folder, Type string
			Options            struct{ Path string }
		}
	}
	readYAML(t, "prometheus/grafana/dashboard.yml", &dashboards)
	isPackaged(t, "docs/grafana.json", dashboards.Providers[0].Options.Path+"/grafana.json")
	var sources struct {
		Version     int `yaml:"apiVersion"`
		Datasources []struct {
			Name, Type, Access, URL string
			Default                 bool `yaml:"isDefault"`
		}
	}
	readYAML(t, "prometheus/grafana/datasource.yml", &sources)
	if source := sources.Datasources[0]; source.Type != "prometheus" || !source.Default {
		t.Errorf("got the data source %+v", source)
	}
}

// isPackaged fails the test unless the packages have a file of the repository at path.
func isPackaged(t testing.TB, file, path string) {
	t.Helper()
	line := "file " + file + " " + strings.TrimPrefix(path, "/") + "\n"
	if !strings.Contains(readFile(t, "../packaging/packages"), line) {
		t.Errorf("packaging/packages does not have the line %q", line)
	}
}
