// Command benchdiscovery measures how fast, and at what cost, Lictor follows a real Consul, and prints the figures
// as Markdown:
//
//	make bench-discovery
//
// Each figure is of a Consul in dev mode, which is server and agent in one, reached over https, and of one Lictor,
// all on this machine. Times run from before the change is sent to Consul, so Consul's own time is in them; how much
// that is a bare blocking query shows, which is asked beside it. README.md says how all of it is measured, and how
// fabio, and consul-template with HAProxy, can be measured in the same run.
package main
