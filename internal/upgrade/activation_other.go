//go:build !unix

package upgrade

import "github.com/lictor-proxy/lictor/proxy"

// ActivationSockets returns nothing, because systemd exists on Linux only.
func ActivationSockets(func(string) string) ([]proxy.Inherited, error) { return nil, nil }
