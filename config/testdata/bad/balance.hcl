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
  empty_wait                   = "soon"
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
  empty_wait    = "3s"
  check {
    timeout = "0s"
    expect  = "PONG"
    retries = 3
  }
}
service "c" {
  listen = 9002
  consul { statuses = ["passing", "critical"] }
  check {
    port        = 8008
    max_silence = "10s"
  }
}
service "d" {
  listen   = 9003
  protocol = "udp"
  consul { statuses = ["passing", "critical"] }
  check {
    http        = "health"
    port        = 65536
    max_silence = "never"
    send        = "PING"
  }
}
service "e" {
  listen = 9004
  check { http = "http://127.0.0.1/health" }
}
service "f" {
  listen = 9005
  check { http = "" }
}
service "g" {
  listen = 9006
  check { http = 5 }
}
service "h" {
  listen = 9007
  check {
    interval = "1s"
    tls {}
  }
}
service "i" {
  listen = 9008
  check {
    http = "https://127.0.0.1/health"
    tls {
      ca_file              = "testdata/bad/balance.hcl"
      ca_path              = "testdata/bad/balance.hcl"
      key_file             = "testdata/bad/balance.hcl"
      insecure_skip_verify = "yes"
      verify               = false
    }
  }
}
