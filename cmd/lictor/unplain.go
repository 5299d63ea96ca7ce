package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/lictor-proxy/lictor/config"
)

// unplain is the way back from plain: it reads into a configuration what another lictor shows of its own. Secrets, which do not show, are
// left alone, and so is what that lictor does not know.
func unplain(text json.RawMessage, into reflect.Value) error {
	switch v := into.Addr().Interface().(type) {
	case *config.Secret:
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
		return unplain(text, into.Elem())
	case reflect.Struct:
		return unplainStruct(text, into)
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
			if err := unplain(item, into.Index(i)); err != nil {
				return err
			}
		}
		return nil
	}
	return json.Unmarshal(text, into.Addr().Interface())
}

func unplainStruct(text json.RawMessage, into reflect.Value) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	for i := range into.NumField() {
		name := snake(into.Type().Field(i).Name)
		if value, there := fields[name]; there {
			if err := unplain(value, into.Field(i)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}
