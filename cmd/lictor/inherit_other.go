//go:build !unix

package main

import "github.com/lictor-proxy/lictor/proxy"

// inheritedSockets is for systemd.
func inheritedSockets(func(string) string) ([]proxy.Inherited, error) { return nil, nil }
