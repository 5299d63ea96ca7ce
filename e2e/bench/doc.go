// Command bench compares whole proxy processes, side by side in one run: Lictor with each of its engines, HAProxy,
// nginx, and any other that is named by flag. `make bench` runs it; its README says what is measured, and how.
//
// It starts backends as processes of their own (itself, in another role), then every proxy with a configuration made
// from the templates in peers, and puts each load on each of them in turn, round after round, so that whatever else
// the machine does hits all alike. The load generator is one thread with an event loop of its own; a load is a fixed
// amount of work, so that processor time per unit of work can be compared. All traffic stays on 127.0.0.0/8, and
// every process that it starts dies with it.
package main
