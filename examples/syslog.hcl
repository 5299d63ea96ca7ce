# Syslog: port 514 of this host leads to the log collectors that are registered in Consul as "syslog", over UDP and TCP.
# A collector must serve both at its registered port.
#
# Change: the name in Consul, and the port if another program of this host uses port 514.
# Try:    socat -u UDP-RECV:5140,bind=127.0.0.1 STDOUT &
#         socat -u TCP-LISTEN:5140,bind=127.0.0.1,fork STDOUT &
#         consul services register -name syslog -address 127.0.0.1 -port 5140
#         lictor run -config syslog.hcl # until Ctrl-C; the next lines are for another terminal
#         logger --server 127.0.0.1 --port 514 --udp hello
#         logger --server 127.0.0.1 --port 514 --tcp hello
#
# The two programs of socat are a collector that prints what it receives. logger reports no error if no collector is
# registered: then "lictor status" shows that the services have no endpoints.
#
# Collectors see the address of Lictor's host, so let them take the sender from the message. Syslog has no
# acknowledgements: the messages that a collector has received when it dies are lost, with or without Lictor.
# Ports below 1024 need root or CAP_NET_BIND_SERVICE. The packages' systemd unit has the latter.
service "syslog-udp" {
  listen    = "127.0.0.1:514"
  protocol  = "udp"
  requests  = 1 # each message may go to another collector
  responses = 0 # a collector answers nothing
  consul { service = "syslog" }
}

service "syslog-tcp" {
  listen       = "127.0.0.1:514"
  balance      = "least_connections" # a sender keeps its connection for days
  idle_timeout = "never"             # and may have nothing to send for hours
  consul { service = "syslog" }
}
