// Command patroni measures how long writes to a PostgreSQL cluster of Patroni fail while its primary moves or fails.
// Clients write through Lictor and through HAProxy:
//
//	make patroni
//
// The command starts a Consul, three Patroni members, Lictor with the recipe in examples/patroni.hcl, and HAProxy as in
// Patroni's documentation. Writers write through both proxies at the same time, so both see the same failure. README.md
// describes each scenario and how the figures are counted.
package main
