service "a" {
  listen       = 9000
  max_sessions = 10
  responses    = 1
  requests     = 1
}
service "b" {
  listen             = 9001
  protocol           = "udp"
  connect_timeout    = "1s"
  half_close_timeout = "1s"
  max_sessions       = 0
}
service "c" {
  listen       = 9002
  protocol     = "udp"
  max_sessions = "many"
  responses    = -1
  requests     = 0
}
