service "web" {
  listen         = 9000
  failover_below = 2
  failback_hold  = "10s"
  failover_on    = "health"
}
service "api" {
  listen         = 9001
  failover_below = 0
  failover_on    = "helth"
  consul {
    datacenters = ["dc1", "dc2", "dc1"]
    datacenter  = "dc3"
  }
  consul {
    peer           = "other"
    prepared_query = "nearest-api"
    tags           = ["v2"]
  }
  static {
    endpoints = ["10.0.0.5:80"]
  }
}
