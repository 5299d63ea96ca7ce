listen     = 9000
max_fails  = 2
token      = "x"
upstream {}
backend "api" {
}
service "web" {
  bind          = "127.0.0.1:9000"
  tags          = ["v2"]
  datacenter    = "dc2"
  endpoints     = ["10.0.0.5:80"]
  http          = "/health"
  critical      = "cut"
  mode          = "tcp"
  maxconn       = 100
  max-conns     = 5
  fall          = 3
  retries       = 3
  slowstart     = "10s"
  idleTimeout   = "1h"
  terminationDelay = "1s"
  lb_policy     = "LEAST_REQUEST"
  healthcheck {}
  upstream {}
  tls {}
  server "a" {}
  static {
    server    = "10.0.0.5:80"
    endpoints = ["10.0.0.5:80"]
    maxconn   = 100
    tags      = ["v2"]
    weight    = 5
  }
  check {
    inter      = "10s"
    fall       = 3
    retries    = 3
    optionhttpchk = "/"
    idle_timeout = "1h"
    log_level = "debug"
  }
  consul {
    consul_service_tag = "v2"
    critical = "1m"
    token = "secret"
  }
}
service "values" {
  listen   = 9001
  protocol = "http"
  balance  = "leastconn"
  on_leave = "shutdown-sessions"
}
service "more" {
  listen   = 9002
  protocol = "HTTPS"
  balance  = "least_conn"
}
service "envoy" {
  listen  = 9003
  balance = "RING_HASH"
}
service "upper" {
  listen  = 9004
  balance = "ROUND_ROBIN"
}
