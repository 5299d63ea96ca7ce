service "a" {
  listen   = 9000
  on_leave = "kut"
  max_age  = "-1h"
}
service "b" {
  listen   = 9001
  on_leave = "cut"
  on_leave {
    deregistered = 30
    critical     = "0s"
    unmatched    = "30"
    gone         = "cut"
  }
  on_leave {}
  max_age_grace = "1m"
}
service "c" {
  listen   = 9002
  protocol = "udp"
  max_age  = "1h"
  on_leave { critical = "cut" }
}
service "d" {
  listen   = 9003
  protocol = "udp"
  on_leave = "cut"
}
service "e" {
  listen   = 9004
  on_leave = "cut"
  static { endpoints = ["10.0.0.5:80"] }
}
service "f" {
  listen = 9005
  on_leave { critical = true }
  static { endpoints = ["10.0.0.5:80"] }
}
service "g" {
  listen = 9006
  on_leave { critical = "1m" }
  static { endpoints = ["10.0.0.5:80"] }
}
