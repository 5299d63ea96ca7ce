//go:build !linux

package returnpath

import "errors"

func read(Family) (*host, error) { return nil, errors.ErrUnsupported }
