// Package testnet provides a network for a test: on Linux, a network namespace that ends with the test.
package testnet
