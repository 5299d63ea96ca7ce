//go:build !race && !faults

package proxy

const slowTests = false
