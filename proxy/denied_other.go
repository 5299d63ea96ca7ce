//go:build !linux

package proxy

// tryForPortable does nothing here: package net knows what there is.
func (*denials) tryForPortable() {}

// allow is false here: nothing is known to be denied.
func (*denials) allow(call, error) bool { return false }
