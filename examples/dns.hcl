# DNS: port 53 of this host leads to the name servers that are registered in Consul as "dns", over UDP and TCP.
#
# Change: the name in Consul, and the address if another program of this host uses port 53.
# Try:    lictor run -config dns.hcl
#         dig @127.0.0.1 example.com
#         dig @127.0.0.1 +tcp example.com
# Use:    write "nameserver 127.0.0.1" into /etc/resolv.conf.
#
# Ports below 1024 need root or CAP_NET_BIND_SERVICE. The packages' systemd unit has the latter.
service "dns-udp" {
  listen       = "127.0.0.1:53"
  protocol     = "udp"
  requests     = 1     # each query may go to another server, so a client's second try does not meet the same one
  responses    = 1     # a session ends with the answer, so it holds a socket for a moment only
  idle_timeout = "10s" # a session without an answer ends after this time
  consul { service = "dns" }
}

# Clients ask again over TCP if an answer is too long for UDP.
service "dns-tcp" {
  listen = "127.0.0.1:53"
  consul { service = "dns" }
}
