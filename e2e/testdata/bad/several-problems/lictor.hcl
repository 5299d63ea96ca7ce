shutdown_grace = "10 secs"

service "web" {
  listen   = "127.0.0.1:99999"
  protocol = "tpc"
  balance  = "random_robin"
}
