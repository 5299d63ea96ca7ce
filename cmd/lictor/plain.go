package main

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/hcl/v2"
)

// plain turns a configuration into maps, lists, text and numbers for encoding/json: names as they are in the configuration, durations and
// addresses as text, secrets masked as they mask themselves. Where something was written is left out. It works for whatever is added to the configuration.
func plain(v any) any { return plainValue(reflect.ValueOf(v)) }

func plainValue(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String()
	case encoding.TextMarshaler:
		if v.Kind() != reflect.Pointer || !v.IsNil() {
			text, err := x.MarshalText()
			if err != nil {
				return err.Error()
			}
			return string(text)
		}
	case fmt.Stringer: // the enumerations
		if v.Kind() == reflect.Int {
			return x.String()
		}
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return plainValue(v.Elem())
	case reflect.Struct:
		return plainStruct(v)
	case reflect.Slice, reflect.Array:
		list := []any{}
		for i := range v.Len() {
			list = append(list, plainValue(v.Index(i)))
		}
		return list
	case reflect.Map:
		all := map[string]any{}
		for _, key := range v.MapKeys() {
			all[fmt.Sprint(plainValue(key))] = plainValue(v.MapIndex(key))
		}
		return all
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
		value := plainValue(v.Field(i))
		if value != nil {
			all[snake(field.Name)] = value
		}
	}
	return all
}

// snake turns HalfCloseTimeout into half_close_timeout, and CAFile into ca_file.
func snake(name string) string {
	var b strings.Builder
	r := []rune(name)
	for i, c := range r {
		if unicode.IsUpper(c) && i > 0 && (unicode.IsLower(r[i-1]) || i+1 < len(r) && unicode.IsLower(r[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}
