service "a" {
  listen                       = 9000
  balance                      = "least_conections"
  sticky                       = "30"
  max_fails                    = -1
  min_available                = 50
  slow_start                   = "-1s"
  max_connections              = 0
  max_connections_per_endpoint = 1.5
  max_connections_per_client   = 0
  max_queue                    = "many"
  queue_timeout                = 5
  check {
    interval = "0s"
    send     = "PING"
  }
  check {}
}
service "b" {
  listen        = 9001
  protocol      = "udp"
  min_available = "101%"
  queue_timeout = "5s"
  max_queue     = 10
  check {
    timeout = "0s"
    expect  = "PONG"
    retries = 3
  }
}
