# PostgreSQL behind Patroni: port 5432 of this host always leads to the primary.
service "postgres" {
  listen     = 5432
  on_leave   = "cut" # clients of a former primary connect anew
  empty_wait = "10s" # and wait for the next one
  consul {
    service  = "batman" # Patroni's scope
    tags     = ["primary"]
    statuses = ["passing", "critical"] # the check below decides
  }
  check { # Patroni's REST API knows first which member is the primary
    http        = "/primary"
    port        = 8008
    interval    = "1s"
    max_silence = "10s" # Patroni may restart; without it for longer, another primary may be elected
  }
}
