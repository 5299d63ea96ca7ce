// Command benchdiscovery measures how fast Lictor follows a real Consul, and at what cost. It prints the figures as
// Markdown:
//
//	make bench-discovery
//
// The Consul runs in dev mode, as server and agent in one, and is reached over https. All programs run on this machine.
// Times begin before the change is sent to Consul and so include Consul's own time. A bare blocking query beside Lictor
// shows how much that is. README.md describes the measurements, and how to measure fabio, or consul-template with
// HAProxy, in the same run.
package main
