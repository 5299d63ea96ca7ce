package proxy

import (
	"reflect"
	"testing"
)

// TestStatsAddUp sets each counter to 1 and adds it twice. A new field that Add forgets fails the test.
func TestStatsAddUp(t *testing.T) {
	one, want := Stats{Handshakes: &Handshakes{}}, Stats{Handshakes: &Handshakes{}}
	fill(reflect.ValueOf(&one).Elem(), 1)
	fill(reflect.ValueOf(&want).Elem(), 2)
	want.ConnectionsActive, want.SessionsActive, want.Descriptors = 0, 0, Descriptors{}
	got := Stats{Handshakes: &Handshakes{}}
	got.Add(&one)
	got.Add(&one)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %+v, want %+v, %+v", got, got.Handshakes, want, want.Handshakes)
	}
	var none Stats
	if none.Add(&one); none.Handshakes != nil {
		t.Error("a service without TLS to its endpoints has counters of handshakes")
	}
}

// fill sets all numbers in v.
func fill(v reflect.Value, n int64) {
	switch v.Kind() {
	case reflect.Int64:
		v.SetInt(n)
	case reflect.Pointer:
		fill(v.Elem(), n)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	}
}
