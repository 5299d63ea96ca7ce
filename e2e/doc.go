// Package e2e tells Lictor's user stories with a real consul agent and the real binary. There is nothing in it to
// import.
//
// Each story is one test; what they share is in the files of helpers:
//
//	main_test.go       builds lictor, once; finds consul
//	lictor_test.go     runs lictor, reads what it says
//	consul_test.go     runs consul, registers and deregisters
//	instance_test.go   the instances of services: TCP and UDP servers that say their name
//	client_test.go     who dials lictor, and counts who answers
//
// Tests that need consul are skipped when there is none, unless CI is set in the environment; `make e2e` gets one.
package e2e
