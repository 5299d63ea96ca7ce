# The services whose sockets systemd holds, see lictor.socket.
service "web" { listen = "127.0.0.1:9000" }

service "dns" {
  listen    = "127.0.0.1:9053"
  protocol  = "udp"
  responses = 1
}
