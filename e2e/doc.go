// Package e2e tests user stories with a real Consul agent and the real lictor binary. It exports nothing.
//
// Each story is one test. Helpers are in these files:
//
//	main_test.go       builds lictor once; finds consul
//	lictor_test.go     runs lictor and reads its output
//	consul_test.go     runs consul, registers and deregisters instances
//	instance_test.go   instances of services: TCP and UDP servers that send their name
//	client_test.go     clients of lictor, and counts of which instance answers
//	mesh_peers_test.go sidecars and other members of Consul's service mesh
//	kernel_linux_test.go clients of the kernel path
//
// A test mostly waits, so each one calls t.Parallel first, and `make test` runs eight side by side. A test therefore
// sets no environment variable of its own process, and expects no free processor.
//
// Tests that need Consul are skipped without it, or fail if CI is set in the environment. `make e2e` builds it.
package e2e
