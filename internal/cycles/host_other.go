//go:build !linux

package cycles

import (
	"context"
	"errors"
)

// hearOfAddresses returns an error, because this system is not supported.
func hearOfAddresses(context.Context, chan<- struct{}) error { return errors.ErrUnsupported }
