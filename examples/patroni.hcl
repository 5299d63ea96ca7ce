# PostgreSQL with Patroni: port 5432 of this host always leads to the primary.
service "postgres" {
  listen     = 5432
  on_leave   = "cut" # resets the clients of a former primary, so that they reconnect
  empty_wait = "10s" # new connections wait this long for the next primary
  consul {
    service  = "batman" # Patroni's scope
    tags     = ["primary"]
    statuses = ["passing", "critical"] # the check below decides which instances get clients
  }
  check { # Patroni's REST API knows first which member is the primary
    http        = "/primary"
    port        = 8008
    interval    = "1s"
    max_silence = "10s" # Patroni may restart; after a longer silence another primary may be elected
  }
}
