package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// problemOf sets one argument of a service to value. It returns the one problem with it, as "line:column summary:
// detail", or "" if there is none.
func problemOf(t *testing.T, argument, value string) string {
	t.Helper()
	_, diags := loadText(fmt.Sprintf("service \"web\" {\n  listen = 9000\n  %s = %s\n}\n", argument, value), nil)
	switch len(diags.Diagnostics) {
	case 0:
		return ""
	case 1:
		d := diags.Diagnostics[0]
		return fmt.Sprintf("%d:%d %s: %s", d.Subject.Start.Line, d.Subject.Start.Column, d.Summary, d.Detail)
	}
	t.Fatalf("%s = %s: %d problems:\n%s", argument, value, len(diags.Diagnostics), textOf(diags))
	return ""
}

// For each kind of argument: the last value that is accepted and the first that is not. Each problem points to its
// value.
func TestValuesAtTheirBorders(t *testing.T) {
	const (
		duration = `write a duration in quotes with its unit, such as "500ms", "10s" or "1h30m"`
		or       = `, or "never"`
	)
	for _, tt := range []struct{ argument, value, want string }{
		{"connect_timeout", `"1ns"`, ""},
		{"connect_timeout", `"2562047h47m16.854775807s"`, ""}, // the longest duration
		{"connect_timeout", `"2562048h"`,
			`3:21 Bad duration: connect_timeout: "2562048h" is too long. ` +
				`The longest duration is 2562047h, about 292 years.`},
		{"connect_timeout", `"9999999h30m"`, `3:21 Bad duration: connect_timeout: "9999999h30m" is too long. ` +
			`The longest duration is 2562047h, about 292 years.`},
		{"connect_timeout", `"99999999999999999999.5s"`, `3:21 Bad duration: connect_timeout: ` +
			`"99999999999999999999.5s" is too long. The longest duration is 2562047h, about 292 years.`},
		{"connect_timeout", `"9999999d"`,
			`3:21 Bad duration: connect_timeout: "9999999d" is not a duration: ` + duration +
				`. The units are ms, s, m and h.`},
		{"idle_timeout", `"9999999h"`,
			`3:18 Bad duration: idle_timeout: "9999999h" is too long. ` +
				`The longest duration is 2562047h, about 292 years.`},
		{"on_leave", `"9999999h"`,
			`3:14 Bad duration: on_leave: "9999999h" is too long. ` +
				`The longest duration is 2562047h, about 292 years.`},
		{"connect_timeout", `"1d"`,
			`3:21 Bad duration: connect_timeout: "1d" is not a duration: ` + duration +
				`. The units are ms, s, m and h.`},
		{"connect_timeout", `"-1ns"`,
			`3:21 Bad duration: connect_timeout: "-1ns" is negative. Write a duration such as "1s".`},
		{"connect_timeout", `"1.5"`, `3:21 Duration without a unit: connect_timeout: "1.5" has no unit. ` +
			`Write "1.5s" for seconds, or another unit: ms, m, h.`},
		{"connect_timeout", `1`, "3:21 Duration without a unit: connect_timeout: " + duration + "."},
		{"connect_timeout", `true`, "3:21 Wrong type: connect_timeout: " + duration + "."},
		{"connect_timeout", `"Never"`, `3:21 Bad duration: connect_timeout: "Never" is not a duration: ` + duration +
			`. The units are ms, s, m and h.`},
		{"idle_timeout", `never`,
			"3:18 Text without quotes: A configuration has no variables. idle_timeout: " + duration + or + "."},
		{"idle_timeout", `null`, ""},
		{"queue_timeout", `"0s"`, ""},
		{"queue_timeout", `"0h0m0s"`, ""},
		{"queue_timeout", `"never"`, `3:19 Bad duration: queue_timeout cannot be "never". ` +
			`Write a duration such as "10s", or "0s" for none.`},
		{"max_fails", `1000`, ""},
		{"max_fails", `1001`,
			"3:15 Number out of range: max_fails: write a whole number from 1 to 1000" + or + "."},
		{"max_fails", `-1`, "3:15 Number out of range: max_fails: write a whole number from 1 to 1000" + or + "."},
		{"max_fails", `1.5`, "3:15 Number out of range: max_fails: write a whole number from 1 to 1000" + or + "."},
		{"max_fails", `1e999999999`,
			"3:15 Number out of range: max_fails: write a whole number from 1 to 1000" + or + "."},
		{"max_fails", `[1]`, "3:15 Wrong type: max_fails: write a whole number from 1 to 1000" + or + "."},
		{"max_queue", `16777216`, ""},
		{"min_available", `"0%"`, ""},
		{"min_available", `"100%"`, ""},
		{"min_available", `"101%"`,
			`3:19 Bad percentage: min_available: write a percentage in quotes, from "0%" to "100%".`},
		{"min_available", `"-1%"`,
			`3:19 Bad percentage: min_available: write a percentage in quotes, from "0%" to "100%".`},
		{"min_available", `"50 %"`,
			`3:19 Bad percentage: min_available: write a percentage in quotes, from "0%" to "100%".`},
		{"min_available", `50`, `3:19 Wrong type: min_available: write a percentage in quotes, from "0%" to "100%".`},
		{"balance", `" "`, `3:13 Empty value: balance is empty. Give it a value, or leave it out.`},
	} {
		if got := problemOf(t, tt.argument, tt.value); got != tt.want {
			t.Errorf("%s = %s:\ngot  %s\nwant %s", tt.argument, tt.value, got, tt.want)
		}
	}
}

// The message about a wrong address suggests a right one.
func TestAddressesWithAProblem(t *testing.T) {
	for _, tt := range []struct{ listen, want string }{
		{`65536`, "A port is a whole number from 0 to 65535."},
		{`80.5`, "A port is a whole number from 0 to 65535."},
		{`-1`, "A port is a whole number from 0 to 65535."},
		{`"127.0.0.1:65536"`, `"127.0.0.1:65536": "65536" is not a port. Write a number from 0 to 65535; ` +
			`0 lets the kernel choose.`},
		{`"127.0.0.1:http"`, `"127.0.0.1:http": "http" is not a port. Write a number from 0 to 65535; ` +
			`0 lets the kernel choose.`},
		{`"127.0.0.1"`, `"127.0.0.1" has no port. Write "127.0.0.1:9000".`},
		{`"127.0.0.1:"`, `"127.0.0.1:" has no port. Write something like "127.0.0.1:9000".`},
		{`"::1"`, `"::1" has no port. Write "[::1]:9000".`},
		{`"[::1]"`, `"[::1]" has no port. Write "[::1]:9000".`},
		{`"fe80::1:x"`, `"fe80::1:x" is not an address with a port. IPv6 addresses need brackets: "[2001:db8::7]:80".`},
		{`"2001:db8::7:8080"`, `"2001:db8::7:8080": IPv6 addresses need brackets. Write "[2001:db8::7]:8080".`},
		{`"tcp://127.0.0.1:80"`, `"tcp://127.0.0.1:80": leave out the "tcp://". Write "127.0.0.1:9000".`},
		{`"*:80"`, `"*:80": to listen on all addresses of the host, ` +
			`write "0.0.0.0:80" (IPv4) or "[::]:80" (IPv6 and IPv4).`},
		{`"example.com:80"`, `"example.com:80": "example.com" is not an IP address. ` +
			`Write one of this host's addresses, such as "127.0.0.1:80".`},
		{`"[::1:80"`, `"[::1:80": IPv6 addresses need brackets. Write "[::1]:80".`},
		{`"web"`, `"web" has no port. Write something like "127.0.0.1:9000".`},
		{`"[web:80"`, `"[web:80" is not an address with a port. Write something like "127.0.0.1:9000".`},
	} {
		_, diags := loadText("service \"web\" { listen = "+tt.listen+" }\n", nil)
		if len(diags.Diagnostics) != 1 || diags.Diagnostics[0].Summary != "Bad listen address" ||
			diags.Diagnostics[0].Detail != tt.want || diags.Diagnostics[0].Subject.Start.Column != 26 {
			t.Errorf("%s: got\n%swant %s", tt.listen, textOf(diags), tt.want)
		}
	}
}

// FuzzShown checks that each configuration can be read back from what a running Lictor shows of it. It also checks that
// Compare finds no changes between a configuration and itself, and that its layout does not matter.
func FuzzShown(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*/*.hcl")
	for _, path := range append(paths, "../example.hcl", "../packaging/lictor.hcl") {
		src, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(src))
	}
	f.Add("service \"web\" {\n  listen = [9000, \"[::]:9001\"]\n  consul {\n    datacenters = [\"a\", \"b\"]\n  }\n}\n")
	f.Add("service \"a$${b}\" {\n  listen = 0\n  on_leave = \"1h\"\n  static { endpoints = [\"ü.example:1\"] }\n}\n")
	f.Fuzz(func(t *testing.T, src string) {
		src = strings.NewReplacer("_file", "_fil", "ca_path", "ca_pat").Replace(src) // no files are read
		cfg, _ := loadText(src, nil)
		if cfg == nil {
			return
		}
		shown, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		back := &Config{}
		if err := json.Unmarshal(shown, back); err != nil {
			t.Fatalf("%v in %s", err, shown)
		}
		back.AdoptSecrets(cfg)
		if c := Compare(back, cfg); !c.Empty() {
			t.Errorf("the configuration read back differs: %s", c.Summary())
		}
		formatted, diags := Format("test.hcl", []byte(src))
		if diags.HasErrors() {
			t.Fatalf("the configuration cannot be formatted:\n%s", textOf(diags))
		}
		if again, _ := Format("test.hcl", formatted); !bytes.Equal(again, formatted) {
			t.Errorf("formatted twice:\n%s\nformatted once:\n%s", again, formatted)
		}
		if other, diags := loadText(string(formatted), nil); other == nil || !Compare(cfg, other).Empty() {
			t.Errorf("the formatted text is another configuration:\n%s", textOf(diags))
		}
	})
}
