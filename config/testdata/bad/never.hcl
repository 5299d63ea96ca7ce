upgrade_grace = never
shutdown_grace = "never"
service "a" {
  listen             = 9000
  connect_timeout    = "never"
  idle_timeout       = "unlimited"
  half_close_timeout = 0
  on_leave           = "never"
  max_age            = "1h"
  max_age_grace      = "never"
  sticky             = "never"
  slow_start         = "never"
  max_connections    = 0
  max_fails          = "nevr"
  max_queue          = "never"
  queue_timeout      = "never"
  empty_wait         = "never"
  failback_hold      = "never"
  consul {
    max_drop  = "never"
    drop_hold = "never"
  }
  static { endpoints = ["10.0.0.5:80"] }
  check {
    interval = "never"
    timeout  = "never"
  }
}
service "b" {
  listen       = 9001
  protocol     = "udp"
  idle_timeout = "never"
  max_sessions = "never"
  responses    = "none"
  requests     = 0
}
