service "web" {
  listen = "127.0.0.1:9000"
}
service "api" {
  listen = ["0.0.0.0:9000", "127.0.0.1:9001", 9001]
}
service "dns" {
  listen   = ["127.0.0.1:9000", "[::1]:9002"]
  protocol = "udp"
}
service "ntp" {
  listen   = "[::]:9002"
  protocol = "udp"
}
service "web" {
  listen = 9003
}
