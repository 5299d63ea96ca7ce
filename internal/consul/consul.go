// Package consul is a client of one Consul agent's HTTP API.
package consul
