# PostgreSQL behind Patroni: port 5432 of this host always leads to the primary.
service "postgres" {
  listen   = 5432
  on_leave = "cut" # clients of a former primary connect anew
  consul {
    service = "batman" # Patroni's scope
    tags    = ["primary"]
  }
}
