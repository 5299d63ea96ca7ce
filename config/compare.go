package config

import (
	"encoding"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// Changes holds the differences between two configurations.
type Changes struct {
	blocks []blockChange // only blocks that differ: first the top level, then services by name, then exposed ones
}

// A blockChange holds the differences of one block.
type blockChange struct {
	of        string // the type of the block; empty: the top level
	name      string
	kind      changeKind
	arguments []argumentChange
}

// An argumentChange is an argument whose value differs. An empty value means that the argument is not set there.
type argumentChange struct {
	name     string // such as "consul.tags"
	old, new string
}

type changeKind byte

const (
	added   changeKind = '+'
	removed changeKind = '-'
	changed changeKind = '~'
)

// Compare returns the changes that turn old into next.
func Compare(old, next *Config) *Changes {
	c := &Changes{}
	if top := differences(argumentsOf(*old), argumentsOf(*next)); len(top) > 0 {
		c.blocks = append(c.blocks, blockChange{kind: changed, arguments: top})
	}
	c.blocks = append(c.blocks, compareNamed("service", byName(old), byName(next), defaultsOf)...)
	c.blocks = append(c.blocks, compareNamed("expose", exposeByName(old), exposeByName(next), defaultsOfExpose)...)
	return c
}

// compareNamed compares the blocks of one type by their names. The function defaults returns what an added block has
// without having it chosen.
func compareNamed[B any](of string, before, after map[string]*B, defaults func(*B) []namedValue) []blockChange {
	var all []blockChange
	for _, name := range sortedUnion(before, after) {
		b, a := before[name], after[name]
		block := blockChange{of: of, name: name, kind: changed}
		switch {
		case b == nil:
			block.kind, block.arguments = added, differences(defaults(a), argumentsOf(*a))
		case a == nil:
			block.kind = removed
		default:
			if block.arguments = differences(argumentsOf(*b), argumentsOf(*a)); len(block.arguments) == 0 {
				continue
			}
		}
		all = append(all, block)
	}
	return all
}

// defaultsOf returns the default arguments of a service like s. Compare does not list these for an added service,
// because they would hide what was chosen.
func defaultsOf(s *Service) []namedValue {
	mesh := ""
	if s.Mesh != nil {
		mesh = "  mesh { as = \"any\" }\n"
	}
	text := fmt.Sprintf("service %s {\n  listen = 1\n  protocol = %q\n%s}\n", Quote(s.Name), s.Protocol, mesh)
	cfg, _ := Parse("", []byte(text), Options{Getenv: func(string) string { return "" }})
	if cfg == nil {
		return nil
	}
	return slices.DeleteFunc(argumentsOf(cfg.Services[0]), func(d namedValue) bool {
		return d.name == "listen" || d.name == "protocol" || d.name == "mesh.as" ||
			strings.HasPrefix(d.name, "consul.") && s.Consul == nil
	})
}

// defaultsOfExpose is defaultsOf for an expose block.
func defaultsOfExpose(e *Expose) []namedValue {
	text := "mesh { bind = \"127.0.0.1\" }\nexpose " + Quote(e.Name) + " {}\n"
	cfg, _ := Parse("", []byte(text), Options{Getenv: func(string) string { return "" }})
	if cfg == nil {
		return nil
	}
	return slices.DeleteFunc(argumentsOf(cfg.Expose[0]), func(d namedValue) bool { return d.name == "intentions" })
}

func exposeByName(cfg *Config) map[string]*Expose {
	all := map[string]*Expose{}
	for i := range cfg.Expose {
		all[cfg.Expose[i].Name] = &cfg.Expose[i]
	}
	return all
}

func byName(cfg *Config) map[string]*Service {
	all := map[string]*Service{}
	for i := range cfg.Services {
		all[cfg.Services[i].Name] = &cfg.Services[i]
	}
	return all
}

func sortedUnion[V any](a, b map[string]V) []string {
	var names []string
	for name := range a {
		names = append(names, name)
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// A namedValue is an argument and its value as text. The text of a secret does not show the secret.
type namedValue struct {
	name, value string
	secret      Secret
}

// argumentsOf returns the arguments of a struct of this package. An argument of an inner struct has that struct's name
// in front. Services are left out.
func argumentsOf(block any) []namedValue {
	return appendArguments(nil, "", reflect.ValueOf(block))
}

func appendArguments(all []namedValue, prefix string, v reflect.Value) []namedValue {
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		name := prefix + argumentName(field.Name)
		switch value.Interface().(type) {
		case hcl.Range, []Service, []Expose:
			continue
		}
		if prefix == "" && field.Name == "Name" { // the block's label
			continue
		}
		if value.Kind() == reflect.Pointer {
			if value.IsNil() {
				continue
			}
			value = value.Elem()
		}
		if _, isText := value.Interface().(encoding.TextMarshaler); value.Kind() == reflect.Struct && !isText {
			all = appendArguments(all, name+".", value)
			continue
		}
		if text := fieldText(field, value); text != "" {
			secret, _ := value.Interface().(Secret)
			all = append(all, namedValue{name, text, secret})
		}
	}
	return all
}

// fieldText returns the value of a field as text, with zero and Off as the field's tags say.
func fieldText(field reflect.StructField, v reflect.Value) string {
	text, ok := written(field, v)
	switch {
	case !ok:
		return valueText(v)
	case text == "" || text == "0":
		return text
	}
	return fmt.Sprintf("%q", text)
}

// valueText returns a value as it would be written in a configuration, or an empty text for a value that is not set.
func valueText(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case time.Duration:
		return fmt.Sprintf("%q", value)
	case Addresses:
		return value.text()
	case Secret:
		if value == "" {
			return ""
		}
		return value.String()
	case netip.AddrPort:
		if !value.IsValid() {
			return ""
		}
		return fmt.Sprintf("%q", value)
	case fmt.Stringer:
		return fmt.Sprintf("%q", value)
	}
	switch v.Kind() {
	case reflect.Struct:
		var parts []string
		for _, a := range argumentsOf(v.Interface()) {
			parts = append(parts, a.name+" = "+a.value)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case reflect.Slice:
		var items []string
		for i := range v.Len() {
			items = append(items, valueText(v.Index(i)))
		}
		if len(items) == 0 {
			return ""
		}
		return "[" + strings.Join(items, ", ") + "]"
	case reflect.String:
		if v.String() == "" {
			return ""
		}
		return fmt.Sprintf("%q", v.String())
	}
	return fmt.Sprint(v.Interface())
}

// differences returns the arguments whose values differ between old and next. Both lists are in the order of the
// fields.
func differences(old, next []namedValue) []argumentChange {
	before := map[string]namedValue{}
	for _, s := range old {
		before[s.name] = s
	}
	var all []argumentChange
	for _, s := range next {
		b := before[s.name]
		switch {
		case b.value != s.value:
			all = append(all, argumentChange{s.name, b.value, s.value})
		case b.secret != s.secret:
			all = append(all, argumentChange{s.name, b.value, "another " + s.value})
		}
		delete(before, s.name)
	}
	for _, s := range old {
		if _, gone := before[s.name]; gone {
			all = append(all, argumentChange{s.name, s.value, ""})
		}
	}
	return all
}

// Empty reports whether there are no changes.
func (c *Changes) Empty() bool { return len(c.blocks) == 0 }

// Summary returns the changes in a line, such as "1 service added, 2 services changed, changed: log_level".
func (c *Changes) Summary() string {
	type kind struct {
		of   string
		kind changeKind
	}
	kinds := map[kind]int{}
	var parts, top []string
	for _, b := range c.blocks {
		if b.of != "" {
			kinds[kind{b.of, b.kind}]++
			continue
		}
		for _, s := range b.arguments {
			top = append(top, s.name)
		}
	}
	for _, of := range [][2]string{{"service", "service"}, {"expose", "exposed service"}} {
		for _, k := range []struct {
			kind changeKind
			word string
		}{{added, "added"}, {changed, "changed"}, {removed, "removed"}} {
			if n := kinds[kind{of[0], k.kind}]; n > 0 {
				parts = append(parts, Plural(n, of[1])+" "+k.word)
			}
		}
	}
	if len(top) > 0 {
		parts = append(parts, "changed: "+strings.Join(top, ", "))
	}
	if len(parts) == 0 {
		return "nothing to change"
	}
	return strings.Join(parts, ", ")
}

// A PendingChange is a changed argument that takes effect only at a restart or an upgrade. Values are as in a
// configuration. An empty value means that the argument is not set.
type PendingChange struct{ Argument, InForce, Configured string }

// Pending returns the changes that a reload does not put into effect. They need a restart or an upgrade.
func (c *Changes) Pending() (all []PendingChange) {
	for _, b := range c.blocks {
		for _, s := range b.arguments {
			if b.of == "" && needsRestart(s.name) {
				all = append(all, PendingChange{s.name, s.old, s.new})
			}
		}
	}
	return all
}

// Reloaded returns the configuration in force after a process that runs with running has reloaded next. That is next,
// except for the arguments that need a restart: they keep their values from running.
func Reloaded(running, next *Config) *Config {
	after := *next
	after.Engine, after.LogJSON, after.StateDir = running.Engine, running.LogJSON, running.StateDir
	return &after
}

func needsRestart(argument string) bool {
	block, _, _ := strings.Cut(argument, ".")
	return slices.Contains([]string{"engine", "log_json", "state_dir"}, block)
}

// Write writes the changes as a diff.
func (c *Changes) Write(w io.Writer) error {
	var b strings.Builder
	for _, block := range c.blocks {
		indent := ""
		if block.of != "" {
			fmt.Fprintf(&b, "%c %s %q\n", block.kind, block.of, block.name)
			indent = "    "
		}
		for _, s := range block.arguments {
			note := ""
			if block.of == "" && needsRestart(s.name) {
				note = "  # needs a restart or an upgrade"
			}
			switch {
			case s.old == "":
				fmt.Fprintf(&b, "%s+ %s = %s%s\n", indent, s.name, s.new, note)
			case s.new == "":
				fmt.Fprintf(&b, "%s- %s = %s%s\n", indent, s.name, s.old, note)
			default:
				fmt.Fprintf(&b, "%s~ %s = %s -> %s%s\n", indent, s.name, s.old, s.new, note)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
