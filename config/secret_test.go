package config

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestSecretNeverPrints(t *testing.T) {
	const text = "s3cr3t-t0k3n"
	c := Consul{Token: text, HTTPAuth: text}
	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb+"\n", c)
		fmt.Fprintf(&b, verb+"\n", c.Token)
		fmt.Fprintf(&b, verb+"\n", &c)
	}
	fmt.Fprintln(&b, c.Token, c)
	if err := json.NewEncoder(&b).Encode(c); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "token", c.Token, "consul", c)
	for _, asJSON := range []bool{true, false} {
		hclog.New(&hclog.LoggerOptions{Output: io.Writer(&b), JSONFormat: asJSON}).Info("x", "token",
			c.Token, "consul", c)
	}
	hex := fmt.Sprintf("%x", text)
	if got := b.String(); strings.Contains(got, text) || strings.Contains(got, hex) ||
		!strings.Contains(got, "(secret)") {
		t.Errorf("the secret shows:\n%s", got)
	}
}

// Each case is a mistake in, beside or around a secret, or a secret in a wrong place.
func TestDiagnosticsNeverShowSecrets(t *testing.T) {
	const secret = "8a6bf0c2-1d2e-4f3a-9b8c"
	sources := []string{
		`token = "SECRET"`,
		`consul { token = "SECRET }`,
		"consul {\n  token = \"SECRET\n}",
		"consul {\n  token = SECRET\n}",
		"consul {\n  token = 'SECRET'\n}",
		"consul {\n  token \"SECRET\"\n}",
		"consul {\n  token: \"SECRET\"\n}",
		"consul {\n  token = \"SECRET\" \"x\"\n}",
		"consul {\n  token = [\"SECRET\"]\n}",
		"consul {\n  token = [\n \"SECRET\"\n]\n}",
		"consul {\n  token = [\n \"SECRET\"\n",
		"consul {\n  token =\n \"SECRET\"\n}",
		"consul {\n  token = { a = \"SECRET\" }\n}",
		"consul {\n  token = \"${SECRET}\"\n}",
		"consul {\n  token = \"\\qSECRET\"\n}",
		"consul {\n  token = <<EOT\nSECRET\nEOT\n bad\n}",
		"consul {\n  token = <<EOT\nSECRET\n",
		"consul {\n  token = <<-EOT\n  SECRET\n  EOT\n  token_file = \"/nowhere\"\n}",
		"consul {\n  tokn = \"SECRET\"\n}",
		"consul {\n  Token = \"SECRET\"\n}",
		"consul {\n  acl_token = \"SECRET\"\n}",
		"consul {\n  http_auth = \"user:SECRET\"\n}",
		"consul {\n  \"token\" = \"SECRET\"\n}",
		"consul {\n  address = \"http://user:SECRET@127.0.0.1:8500\"\n}",
		"consul {\n  datacenter = \"x\n  token = \"SECRET\"\n}",
		"consul {\n  token = \"SECRET\"\n  token = \"SECRET\"\n}",
		"consul.token = \"SECRET\"",
		"service \"web\" {\n  listen = 1\n  token = \"SECRET\"\n  consul { token = \"SECRET\" }\n}",
		"consul {\n  token = \"x${1 + \"SECRET\"}\"\n}",
		"consul {\n  token = SECRET()\n}",
		"consul {\n  token = true ? \"SECRET\" : 1\n}",
		"consul {\n  token = {\n    a = \"SECRET\"\n    bad\n  }\n}",
		"consul \"SECRET\" {\n  token = \"SECRET\"\n}\nbad",
		"consul {\n  bearer = \"SECRET\"\n}",
		"consul {\n  tls {\n    key = \"SECRET\"\n  }\n}",
		"consul {\n  key = <<EOT\nlisten = \"SECRET\"\n",
		"consul {\n  bearer(\"SECRET\")\n}",
		"service \"web\" {\n  listen = 1\n  check { send = \"SECRET\" }\n}",
		"service \"web\" {\n  listen = 1\n  check {\n    send = [\"SECRET\"]\n  }\n}",
		"service \"web\" {\n  listen = 1\n  check {\n    send \"SECRET\"\n  }\n}",
		"service \"web\" {\n  listen = [\"x\" # SECRET\n}",
		"consul { datacenter = \"x\", token = \"SECRET\" }",
		"consul { datacenter = \"x, token = \"SECRET\" }",
		"consul { datacenter = [\"x\"\n  token = \"SECRET\"\n}",
		"log_level \"x\" \"SECRET\"",
		"oauth \"SECRET\" {\n}",
		"consul {\n  address = \"me:SECRET@127.0.0.1:8500\"\n}",
		"consul {\n  address = \"http://me:SECRET/x@127.0.0.1:8500\n}",
	}
	for _, source := range sources {
		t.Run(source, func(t *testing.T) {
			_, diags := loadText(strings.ReplaceAll(source, "SECRET", secret), nil)
			var b strings.Builder
			_ = diags.WriteText(&b, true)
			_ = diags.WriteJSON(&b)
			for _, err := range diags.Errs() {
				fmt.Fprintln(&b, err)
			}
			if len(diags.Diagnostics) == 0 || strings.Contains(b.String(), secret) ||
				strings.Contains(b.String(), "9b8c") {
				t.Errorf("the secret shows, or there is no error:\n%s", b.String())
			}
		})
	}
}
