package config

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Off is the value of a disabled duration or count, in fields whose zero value means the default. The tag off of such a
// field says how Off is written: "never", "0s" or "0".
const Off = -1

// never is the word for a duration without an end, and for a count without a limit.
const never = "never"

// orNeverHint ends the hint for an argument that accepts "never".
const orNeverHint = `, or "never"`

// orOff returns n, or Off if n is zero. Use it for fields whose zero value means the default.
func orOff(n int) int {
	if n == 0 {
		return Off
	}
	return n
}

// written returns how the zero or Off of a field is written, according to the field's tags. It returns false for any
// other value, and for a field without such tags. An empty text means that the value is not shown.
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

// setWritten sets v to zero or Off if text, which is JSON, is how the field's tags write that value. It reports whether
// it has set v. It also accepts the texts of releases without the word "never": zero, and -1 for any number of
// responses.
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

// durationAboveZero reads a duration that can be neither zero nor "never". why says what the argument is for.
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

// durationOrNone reads a duration that can be "0s", and returns none for "0s". It refuses "never".
func (b *block) durationOrNone(name string, def, none time.Duration) time.Duration {
	if b.isNever(name) {
		b.l.problem(b.rangeOf(name), "Bad duration",
			`%s cannot be %q. Write a duration such as "10s", or "0s" for none.`, name, never)
		return def
	}
	d, ok := b.duration(name, def, durationHint)
	if ok && d == 0 {
		return none
	}
	return d
}

// durationOrNever reads a duration that can be "never", and returns off for "never". It accepts zero as "never", with a
// warning.
func (b *block) durationOrNever(name string, def, off time.Duration) time.Duration {
	if b.isNever(name) {
		return off
	}
	d, ok := b.duration(name, def, durationHint+orNeverHint)
	if ok && d == 0 {
		zero, _ := b.plainText(name) // as written, such as "0s" or "0ms"
		b.zeroForNever(name, strconv.Quote(zero))
		return off
	}
	return d
}

// countOrNever reads a whole number from least to most, or "never". It returns off for "never".
func (b *block) countOrNever(name string, def, off, least, most int) int {
	if b.isNever(name) {
		return off
	}
	return b.number(name, def, least, most, numberHint(least, most)+orNeverHint)
}

// countZeroIsNever reads a whole number from 1 to most, or "never". It returns off for "never". It accepts zero as
// "never", with a warning.
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

// isNever reports whether the argument is present and is "never".
func (b *block) isNever(name string) bool {
	text, _ := b.plainText(name)
	return text == never
}

// zeroForNever warns about a zero that means "never". A later release will refuse that zero.
func (b *block) zeroForNever(name, zero string) {
	b.l.warn(b.rangeOf(name), "Old spelling", "%s: write %q instead of %s. "+
		"Both mean the same for now. A later release will refuse %s.", name, never, zero, zero)
}
