// Package testcgroup makes control groups for tests and benchmarks, on Linux: groups of the cgroup2 hierarchy, which
// end with the test.
package testcgroup
