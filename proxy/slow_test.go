//go:build race || faults

package proxy

// slowTests says that everything takes several times as long.
const slowTests = true
