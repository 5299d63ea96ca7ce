package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// A spelling is an argument, the ways to write its values, and the values of its field.
type spelling struct {
	argument string // with the name of its block and a dot in front, if the block is in the consul block
	protocol string // empty: TCP
	field    string // field of Config or Service; with a dot in front: of the service's Consul query
	values   map[string]any
	warned   string // old text for never, accepted with a warning; empty: none
}

// spellings returns every argument whose zero or "never" has a meaning of its own.
func spellings() []spelling {
	orNever := map[string]any{`"never"`: Off * time.Nanosecond, `"3s"`: 3 * time.Second}
	none := map[string]any{`"0s"`: Off * time.Nanosecond, `"3s"`: 3 * time.Second}
	limit := map[string]any{`"never"`: 0, `7`: 7}
	return []spelling{
		{"shutdown_grace", "", "ShutdownGrace", none, ""},
		{"upgrade_grace", "", "UpgradeGrace", map[string]any{`"never"`: time.Duration(0), `"3s"`: 3 * time.Second},
			`"0s"`},
		{"sticky", "", "Sticky", map[string]any{`"0s"`: time.Duration(0), `"3s"`: 3 * time.Second}, ""},
		{"max_fails", "", "MaxFails", map[string]any{`"never"`: Off, `7`: 7}, "0"},
		{"min_available", "", "MinAvailable", map[string]any{`"0%"`: Off, `"7%"`: 7}, ""},
		{"slow_start", "", "SlowStart", map[string]any{`"0s"`: time.Duration(0), `"3s"`: 3 * time.Second}, ""},
		{"max_connections", "", "MaxConnections", limit, ""},
		{"max_connections_per_endpoint", "", "MaxConnectionsPerEndpoint", limit, ""},
		{"max_connections_per_client", "", "MaxConnectionsPerClient", limit, ""},
		{"queue_timeout", "", "QueueTimeout", none, ""},
		{"empty_wait", "", "EmptyWait", none, ""},
		{"idle_timeout", "", "IdleTimeout", orNever, `"0s"`},
		{"half_close_timeout", "", "HalfCloseTimeout", orNever, `"0s"`},
		{"max_age", "", "MaxAge", map[string]any{`"never"`: time.Duration(0), `"3s"`: 3 * time.Second}, `"0s"`},
		{"max_age_grace", "", "MaxAgeGrace", none, ""},
		{"responses", "udp", "Responses", map[string]any{`"never"`: 0, `0`: Off, `7`: 7}, ""},
		{"requests", "udp", "Requests", limit, ""},
		{"failback_hold", "", "FailbackHold", none, ""},
		{"max_drop", "", "Consul.MaxDrop", map[string]any{`0`: Off, `7`: 7}, ""},
		{"drop_hold", "", "Consul.DropHold", none, ""},
		{"hold_max.critical", "", "Consul.HoldMax.Critical", none, ""},
		{"hold_max.forgotten", "", "Consul.HoldMax.Forgotten", none, ""},
	}
}

// load loads a configuration in which the argument has the given value.
func (s *spelling) load(t *testing.T, value string) (*Config, Diagnostics) {
	t.Helper()
	argument := s.argument + " = " + value + "\n"
	if block, inner, nested := strings.Cut(argument, "."); nested && strings.Contains(s.argument, ".") {
		argument = block + " {\n" + inner + "}\n"
	}
	service := "listen = 9000\n"
	if s.protocol != "" {
		service += fmt.Sprintf("protocol = %q\n", s.protocol)
	}
	if s.argument == "max_age_grace" {
		service += "max_age = \"1h\"\n"
	}
	var text string
	switch _, inQuery := strings.CutPrefix(s.field, "Consul."); {
	case strings.HasSuffix(s.argument, "_grace") && s.argument != "max_age_grace":
		text = argument + "service \"web\" {\n" + service + "}\n"
	case inQuery:
		text = "service \"web\" {\n" + service + "consul {\n" + argument + "}\n}\n"
	case s.argument == "failback_hold":
		text = "service \"web\" {\n" + service + argument + "consul { datacenters = [\"dc1\", \"dc2\"] }\n}\n"
	default:
		text = "service \"web\" {\n" + service + argument + "}\n"
	}
	cfg, diags := loadText(text, nil)
	if cfg == nil {
		t.Fatalf("%s = %s:\n%s", s.argument, value, textOf(diags))
	}
	return cfg, diags
}

// value returns the value of the argument's field in cfg.
func (s *spelling) value(cfg *Config) any {
	v := reflect.ValueOf(cfg).Elem()
	if !v.FieldByName(strings.TrimPrefix(s.field, "Consul.")).IsValid() {
		v = reflect.ValueOf(&cfg.Services[0]).Elem()
	}
	if field, inQuery := strings.CutPrefix(s.field, "Consul."); inQuery {
		v = reflect.ValueOf(cfg.Services[0].Consul).Elem()
		for name := range strings.SplitSeq(field, ".") {
			v = v.FieldByName(name)
		}
		return v.Interface()
	}
	return v.FieldByName(s.field).Interface()
}

// Zero and never have one meaning everywhere: in the configuration, in the types, in what a running Lictor shows, and
// in the output of Compare.
func TestZeroAndNever(t *testing.T) {
	for _, s := range spellings() {
		t.Run(s.argument, func(t *testing.T) {
			for value, want := range s.values {
				cfg, diags := s.load(t, value)
				if got := s.value(cfg); got != want || len(diags.Diagnostics) > 0 {
					t.Errorf("%s: got %#v with %d diagnostics, want %#v without",
						value, got, len(diags.Diagnostics), want)
				}
				shown, err := json.Marshal(cfg)
				if err != nil {
					t.Fatal(err)
				}
				text := strings.Trim(strings.ReplaceAll(value, "%", ""), `"`)
				name := s.argument[strings.LastIndex(s.argument, ".")+1:]
				if !strings.Contains(string(shown), `"`+name+`":"`+text+`"`) &&
					!strings.Contains(string(shown), `"`+name+`":`+text) {
					t.Errorf("%s is missing in the JSON: %s", value, shown)
				}
				got := &Config{}
				if err := json.Unmarshal(shown, got); err != nil || s.value(got) != want {
					t.Errorf("%s is read as %#v from what is shown, want %#v: %v", value, s.value(got), want, err)
				}
				for other := range s.values {
					if other != value {
						s.wantChange(t, cfg, value, other)
					}
				}
			}
			if s.warned == "" {
				return
			}
			cfg, diags := s.load(t, s.warned)
			if got, want := s.value(cfg), s.values[`"never"`]; got != want {
				t.Errorf("%s: got %#v, want %#v as ever", s.warned, got, want)
			}
			if lines := diags.Warnings(); len(lines) != 1 || !strings.HasPrefix(lines[0], "test.hcl:") ||
				!strings.Contains(lines[0], s.argument) || !strings.Contains(lines[0], `"never"`) {
				t.Errorf("%s: got the warnings %q", s.warned, lines)
			}
		})
	}
}

// wantChange changes the argument in cfg from old to next, and checks the output of Compare.
func (s *spelling) wantChange(t *testing.T, cfg *Config, old, next string) {
	t.Helper()
	other, _ := s.load(t, next)
	var b strings.Builder
	_ = Compare(cfg, other).Write(&b)
	plain := strings.NewReplacer(`"`, "", "%", "")
	want := s.argument + " = " + plain.Replace(old) + " -> " + plain.Replace(next) + "\n"
	if !strings.HasSuffix(plain.Replace(b.String()), want) {
		t.Errorf("%s to %s shows as %q", old, next, b.String())
	}
}

// Every field whose zero or Off has a meaning of its own is in spellings.
func TestSpellingsAreComplete(t *testing.T) {
	// The zero of these fields is not shown.
	known := map[string]bool{"FailoverBelow": true, "FailoverOn": true, "SendProxy": true, "SendProxyUDP": true}
	for _, s := range spellings() {
		known[strings.TrimPrefix(strings.TrimPrefix(s.field, "Consul."), "HoldMax.")] = true
	}
	for _, block := range []reflect.Type{
		reflect.TypeFor[Config](), reflect.TypeFor[Service](), reflect.TypeFor[ConsulQuery](),
		reflect.TypeFor[HoldMax](),
	} {
		for i := range block.NumField() {
			field := block.Field(i)
			_, zero := field.Tag.Lookup("zero")
			if _, off := field.Tag.Lookup("off"); (zero || off) && !known[field.Name] {
				t.Errorf("%s.%s has no spelling in this test", block.Name(), field.Name)
			}
		}
	}
}

// A Lictor of a release without the word "never" shows zeros. Zeros keep their old meaning, so that plan shows no
// change when only the program has changed.
func TestUnmarshalOfOldZeros(t *testing.T) {
	const text = `
		upgrade_grace  = "never"
		shutdown_grace = "0s"
		service "dns" {
			listen    = 9001
			protocol  = "udp"
			responses = 0
		}
		service "web" {
			listen             = 9000
			idle_timeout       = "never"
			half_close_timeout = "never"
			max_fails          = "never"
			min_available      = "0%"
			queue_timeout      = "0s"
			consul {
				max_drop  = 0
				drop_hold = "0s"
			}
		}`
	const shown = `{"upgrade_grace": "0s", "shutdown_grace": "0s", "log_level": "info", "engine": "auto",
		"consul": {"address": "127.0.0.1:8500", "max_watches": 150},
		"services": [
			{"name": "dns", "protocol": "udp", "listen": ["127.0.0.1:9001"], "connect_timeout": "1s", "idle_timeout": "1m0s",
			"half_close_timeout": "5m0s", "max_age": "0s", "max_age_grace": "30s", "max_sessions": 65536, "responses": 0,
			"requests": 0, "max_connections": 0, "max_connections_per_endpoint": 0, "max_connections_per_client": 0,
			"max_fails": 2, "min_available": 50, "max_queue": 1024, "queue_timeout": "5s", "failover_below": 0,
			"failback_hold": "0s", "consul": {"service": "dns", "statuses": ["passing"], "max_drop": 50, "drop_hold": "10s"}},
			{"name": "web", "protocol": "tcp", "listen": ["127.0.0.1:9000"], "connect_timeout": "1s", "idle_timeout": "0s",
			"half_close_timeout": "0s", "max_age": "0s", "max_age_grace": "30s", "max_sessions": 65536, "responses": -1,
			"requests": 0, "max_connections": 0, "max_connections_per_endpoint": 0, "max_connections_per_client": 0,
			"max_fails": 0, "min_available": 0, "max_queue": 1024, "queue_timeout": "0s", "failover_below": 0,
			"failback_hold": "0s", "consul": {"service": "web", "statuses": ["passing"], "max_drop": 0, "drop_hold": "0s"}}
		]}`
	running := &Config{}
	if err := json.Unmarshal([]byte(shown), running); err != nil {
		t.Fatal(err)
	}
	// Only arguments that the old Lictor does not know show as changes.
	const want = `~ service "dns"
    + consul.hold_max.critical = "1m0s"
    + consul.hold_max.forgotten = "1m0s"
~ service "web"
    + empty_wait = "3s"
    + consul.hold_max.critical = "1m0s"
    + consul.hold_max.forgotten = "1m0s"
`
	var b strings.Builder
	if err := Compare(running, mustLoad(t, text, nil)).Write(&b); err != nil {
		t.Fatal(err)
	}
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}
