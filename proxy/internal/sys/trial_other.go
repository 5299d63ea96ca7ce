//go:build !linux

package sys

// Try does nothing on this system: package net knows which calls exist.
func (*Denials) Try([]Call) {}

// Allow returns false: no denials are known on this system.
func (*Denials) Allow(Call, error) bool { return false }
