# DNS: port 53 of this host leads to the name servers that are registered in Consul as "dns", over UDP and TCP.
#
# Change: the name in Consul, and the address if another program of this host uses port 53.
# Try:    consul services register -name dns -address 127.0.0.1 -port 8600
#         lictor run -config dns.hcl # until Ctrl-C; the next lines are for another terminal
#         dig @127.0.0.1 consul.service.consul
#         dig @127.0.0.1 +tcp consul.service.consul
# Use:    write "nameserver 127.0.0.1" into /etc/resolv.conf.
#
# The first line registers the agent's own name server, which knows names under "consul" only. To register a second
# instance on the same agent, give it another ID: consul services register -name dns -id dns-2 -address ... -port ...
#
# Ports below 1024 need root or CAP_NET_BIND_SERVICE. The packages' systemd unit has the latter.
service "dns-udp" {
  listen       = "127.0.0.1:53"
  protocol     = "udp"
  requests     = 1     # each query may go to another server
  responses    = 1     # a session ends with the answer, so it holds a socket for a moment only
  idle_timeout = "10s" # a session without an answer ends after this time

  # A query to a dead server is lost, and the client waits for seconds before it asks again. The check finds a dead
  # server in place of clients, and only the check asks that server until it answers. Any answer is good.
  check {
    interval = "1s"
    # A query with the ID 0x1234 (RFC 1035, section 4.1) asks for the name servers of the root.
    send   = "\u00124\u0001\u0000\u0000\u0001\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0002\u0000\u0001"
    expect = "\u00124" # the ID
  }
  consul { service = "dns" }
}

# Clients ask again over TCP if an answer is too long for UDP.
service "dns-tcp" {
  listen = "127.0.0.1:53"
  consul { service = "dns" }
}
