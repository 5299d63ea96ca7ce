shutdown_grace = 10
service "a" {
  listen             = 9000
  connect_timeout    = "0s"
  idle_timeout       = "10"
  half_close_timeout = "-1s"
}
service "b" {
  listen       = 9001
  protocol     = "udp"
  idle_timeout = "0s"
}
service "c" {
  listen          = 9002
  connect_timeout = "1 second"
  idle_timeout    = "1d"
  half_close_timeout = true
}
