package config

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// MarshalJSON returns the configuration as a running Lictor shows it. Arguments have their names from the
// configuration, durations and addresses are text, and secrets are masked. Places in source files are left out.
// UnmarshalJSON reads it back.
//
// MarshalJSON works by the types of the fields, and so needs no change when an argument is added.
func (c *Config) MarshalJSON() ([]byte, error) { return json.Marshal(plainValue(reflect.ValueOf(*c))) }

// plainValue turns a value into maps, lists, text and numbers for JSON.
func plainValue(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String()
	case Addresses:
		return x.plain()
	case encoding.TextMarshaler:
		if v.Kind() != reflect.Pointer || !v.IsNil() {
			text, err := x.MarshalText()
			if err != nil {
				return err.Error()
			}
			return string(text)
		}
	case fmt.Stringer: // enumerations
		if v.Kind() == reflect.Int {
			return x.String()
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return plainValue(v.Elem())
	case reflect.Struct:
		return plainStruct(v)
	case reflect.Slice:
		list := []any{}
		for i := range v.Len() {
			list = append(list, plainValue(v.Index(i)))
		}
		return list
	}
	return v.Interface()
}

func plainStruct(v reflect.Value) any {
	all := map[string]any{}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() || field.Type == reflect.TypeFor[hcl.Range]() {
			continue
		}
		value := plainField(field, v.Field(i))
		if value != nil {
			all[argumentName(field.Name)] = value
		}
	}
	return all
}

// plainField turns a field's value into a plain value, with zero and Off as the field's tags say. It returns nil for a
// value that is not shown.
func plainField(field reflect.StructField, v reflect.Value) any {
	text, ok := written(field, v)
	switch {
	case !ok:
		return plainValue(v)
	case text == "":
		return nil
	case text == "0":
		return 0
	}
	return text
}
