upgrade_grace = "0s"
service "web" {
  listen             = 9000
  idle_timeout       = "0s"
  half_close_timeout = "0ms"
  max_age            = "0s"
  max_fails          = 0
}

# In these arguments zero means zero: no time, or none. That stays valid.
shutdown_grace = "0s"
service "zero" {
  listen        = 9001
  sticky        = "0s"
  slow_start    = "0s"
  min_available = "0%"
  queue_timeout = "0s"
  empty_wait    = "0s"
  max_age       = "1h"
  max_age_grace = "0s"
  failback_hold = "0s"
  consul {
    max_drop  = 0
    drop_hold = "0s"
  }
  static { endpoints = ["10.0.0.5:80"] }
}
service "dns" {
  listen    = 9001
  protocol  = "udp"
  responses = 0
}
