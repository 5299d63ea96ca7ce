//go:build !linux

package sys

// Try does nothing here: package net knows what there is.
func (*Denials) Try([]Call) {}

// Allow is false here: nothing is known to be denied.
func (*Denials) Allow(Call, error) bool { return false }
