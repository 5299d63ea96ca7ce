// Package testnet gives tests a network of their own: on Linux, a network namespace that ends with the test.
package testnet
