package config

import (
	"fmt"
	"io"
	"log/slog"
)

// A Secret prints as "(secret)" however it is printed. Encoded as text, an empty Secret is empty. Convert a Secret to a
// string to get its text.
type Secret string

const secretText = "(secret)"

// String returns "(secret)".
func (Secret) String() string { return secretText }

// GoString returns "(secret)", for %#v.
func (Secret) GoString() string { return secretText }

// Format writes "(secret)" for every verb. Without it %x and %q would print the text.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secretText) }

// MarshalText returns "(secret)", for JSON and other encodings. It returns an empty text if there is no secret.
func (s Secret) MarshalText() ([]byte, error) {
	if s == "" {
		return []byte{}, nil
	}
	return []byte(secretText), nil
}

// LogValue returns "(secret)", for log/slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(secretText) }
