// Command bench compares proxy processes side by side in one run: Lictor with each of its engines, HAProxy, nginx, and
// others named by flags. `make bench` runs it. Its README describes what is measured, and how.
//
// Bench starts itself as several backend processes. It starts every proxy with a configuration from the templates in
// peers. Then it runs each load on each proxy in turn, round after round, so that disturbances of the machine hit all
// proxies alike. The load generator is one thread with its own event loop. A load is a fixed amount of work, so that
// processor time per unit of work can be compared. All traffic stays on 127.0.0.0/8, and every process that bench
// starts ends with it.
package main
