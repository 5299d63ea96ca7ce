// Command patroni measures how long writes to a PostgreSQL that Patroni looks after fail, through Lictor and through
// HAProxy, while its primary moves or is in trouble:
//
//	make patroni
//
// It starts a Consul, three Patroni members, Lictor with the recipe of examples/patroni.hcl, and HAProxy as Patroni's
// documentation configures it. Writers write through both proxies at the same time, so both meet the same failure.
// README.md says what each scenario does and how the figures are counted.
package main
