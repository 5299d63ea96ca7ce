package config

import (
	"fmt"
	"io"
	"log/slog"
)

// A Secret prints as "(secret)" however it is printed. Convert it to a string to get its text.
type Secret string

const secretText = "(secret)"

// String returns "(secret)".
func (Secret) String() string { return secretText }

// GoString returns "(secret)", for %#v.
func (Secret) GoString() string { return secretText }

// Format writes "(secret)" for every verb. Without it %x and %q would print the text.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secretText) }

// MarshalText returns "(secret)", for JSON and other encodings.
func (Secret) MarshalText() ([]byte, error) { return []byte(secretText), nil }

// LogValue returns "(secret)", for log/slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(secretText) }
