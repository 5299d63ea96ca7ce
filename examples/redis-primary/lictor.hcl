# Redis: port 6379 of this host leads to the instance that Consul considers the primary. README.md says how Consul knows.
service "redis" {
  listen     = 6379
  on_leave   = "cut" # resets the clients of a former primary, so that they reconnect
  empty_wait = "10s" # new connections wait this long for the next primary
  consul {
    service   = "redis-primary"
    hold_max  = "0s" # a former primary can still be reached, but must get no clients
    drop_hold = "0s"
  }
}
