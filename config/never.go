package config

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Off is the value of a duration or count that is turned off, in fields in which zero means the default. The tag off
// of such a field says how Off is written: as "never", or as no time or nothing at all.
const Off = -1

// never is the word for a time that does not run out, and for a count that is not reached.
const never = "never"

// orNeverHint is the end of a hint for an argument that can be never.
const orNeverHint = `, or "never"`

// orOff returns n, or Off for zero, in fields in which zero means the default.
func orOff(n int) int {
	if n == 0 {
		return Off
	}
	return n
}

// written returns how the zero or the Off of a field is written, by the tags of the field. It returns false for other
// values, and for fields without such tags. An empty text means that there is nothing to show.
func written(field reflect.StructField, v reflect.Value) (text string, ok bool) {
	zero, hasZero := field.Tag.Lookup("zero")
	off, hasOff := field.Tag.Lookup("off")
	switch {
	case !v.CanInt():
		return zero, hasZero && v.IsZero()
	case v.Int() == 0 && (hasZero || hasOff):
		return zero, true
	case v.Int() < 0 && hasOff:
		return off, true
	}
	return "", false
}

// setWritten sets v to zero or Off if text, which is JSON, is how that is written in the field, and returns whether it
// did. It also takes what was written before there was the word "never": zero, or -1 for any number of responses.
func setWritten(field reflect.StructField, text json.RawMessage, v reflect.Value) bool {
	zero, off := field.Tag.Get("zero"), field.Tag.Get("off")
	if zero == "" && off == "" {
		return false
	}
	value := strings.Trim(string(text), `"`)
	nothing := value == "0" || value == "0s"
	switch {
	case value == "":
		return false
	case value == zero, zero == never && value == "-1":
		v.SetInt(0)
	case value == off, off == never && nothing:
		v.SetInt(Off)
	default:
		return false
	}
	return true
}

// durationAboveZero reads a duration that can be neither zero nor never. why says what the argument is for.
func (b *block) durationAboveZero(name string, def time.Duration, why string) time.Duration {
	if b.isNever(name) {
		b.l.problem(b.rangeOf(name), "Bad duration", "%s cannot be %q: %s.", name, never, why)
		return def
	}
	d, ok := b.duration(name, def, durationHint)
	if ok && d == 0 {
		b.l.problem(b.rangeOf(name), "Bad duration", "%s must be above zero: %s.", name, why)
		return def
	}
	return d
}

// durationOrNone reads a duration that can be "0s", which is no time at all. It returns none for that.
func (b *block) durationOrNone(name string, def, none time.Duration) time.Duration {
	if b.isNever(name) {
		b.l.problem(b.rangeOf(name), "Bad duration",
			`%s cannot be %q. Write a duration such as "10s"; "0s" is no time at all.`, name, never)
		return def
	}
	d, ok := b.duration(name, def, durationHint)
	if ok && d == 0 {
		return none
	}
	return d
}

// durationOrNever reads a duration that can be "never". It returns off for that.
func (b *block) durationOrNever(name string, def, off time.Duration) time.Duration {
	if b.isNever(name) {
		return off
	}
	d, ok := b.duration(name, def, durationHint+orNeverHint)
	if ok && d == 0 {
		zero, _ := b.plainText(name) // as it is written: "0s" or "0ms"
		b.zeroForNever(name, strconv.Quote(zero))
		return off
	}
	return d
}

// countOrNever reads a whole number from least to most that can be "never". It returns off for that.
func (b *block) countOrNever(name string, def, off, least, most int) int {
	if b.isNever(name) {
		return off
	}
	return b.number(name, def, least, most, numberHint(least, most)+orNeverHint)
}

// countZeroIsNever is countOrNever, but zero is taken too. It means never, with a warning.
func (b *block) countZeroIsNever(name string, def, off, most int) int {
	if b.isNever(name) {
		return off
	}
	n := b.number(name, def, 0, most, numberHint(1, most)+orNeverHint)
	if n == 0 {
		b.zeroForNever(name, "0")
		return off
	}
	return n
}

// isNever reports whether the argument is there and is "never".
func (b *block) isNever(name string) bool {
	text, _ := b.plainText(name)
	return text == never
}

// zeroForNever warns of a zero that means never. A later release will refuse it.
func (b *block) zeroForNever(name, zero string) {
	b.l.warn(b.rangeOf(name), "Old spelling", "%s: write %q instead of %s. "+
		"Both mean the same here for now. A later release will refuse %s.", name, never, zero, zero)
}
