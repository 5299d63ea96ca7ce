//go:build !unix

package upgrade

import "github.com/lictor-proxy/lictor/proxy"

// ActivationSockets returns nothing: systemd is for Linux.
func ActivationSockets(func(string) string) ([]proxy.Inherited, error) { return nil, nil }
