package config

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"time"
)

// UnmarshalJSON reads the configuration that another Lictor shows with MarshalJSON. It does not change secrets, which
// are not shown, or arguments that the other Lictor does not know.
func (c *Config) UnmarshalJSON(text []byte) error {
	c.Metrics.Endpoints = true // a Lictor without the argument has series for each endpoint
	if err := setValue(text, reflect.ValueOf(c).Elem()); err != nil {
		return err
	}
	for i := range c.Services {
		if s := &c.Services[i]; !s.hasFailover() {
			s.FailbackHold = 0 // a Lictor without the word "never" shows "0s" here
		}
	}
	return nil
}

// AdoptSecrets copies the secrets of next to c. c was read from another Lictor's answer, which does not show its
// secrets. So Compare cannot tell whether secrets differ, and does not report them.
func (c *Config) AdoptSecrets(next *Config) {
	c.Consul.Token, c.Consul.HTTPAuth = next.Consul.Token, next.Consul.HTTPAuth
	services := byName(next)
	for i := range c.Services {
		s := &c.Services[i]
		if n := services[s.Name]; n != nil && n.Check != nil && s.Check != nil && s.Check.Expect != "" {
			s.Check.Send = n.Check.Send
		}
	}
}

// setValue sets a field from the JSON that plainValue made of such a field.
func setValue(text json.RawMessage, into reflect.Value) error {
	switch v := into.Addr().Interface().(type) {
	case *Secret:
		return nil
	case *time.Duration:
		var s string
		if err := json.Unmarshal(text, &s); err != nil {
			return err
		}
		d, err := time.ParseDuration(s)
		*v = d
		return err
	case encoding.TextUnmarshaler:
		return json.Unmarshal(text, v)
	}
	switch into.Kind() {
	case reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		return setValue(text, into.Elem())
	case reflect.Struct:
		return setStruct(text, into)
	case reflect.Slice:
		var items []json.RawMessage
		if err := json.Unmarshal(text, &items); err != nil {
			return err
		}
		if len(items) == 0 {
			return nil
		}
		into.Set(reflect.MakeSlice(into.Type(), len(items), len(items)))
		for i, item := range items {
			if err := setValue(item, into.Index(i)); err != nil {
				return err
			}
		}
		return nil
	}
	return json.Unmarshal(text, into.Addr().Interface())
}

func setStruct(text json.RawMessage, into reflect.Value) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	for i := range into.NumField() {
		field := into.Type().Field(i)
		name := argumentName(field.Name)
		if value, there := fields[name]; there && !setWritten(field, value, into.Field(i)) {
			if err := setValue(value, into.Field(i)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}
