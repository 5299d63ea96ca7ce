service "without" {
  listen = 9000
  static { endpoints = ["10.0.0.1:80"] }
  accept_proxy {}
}

service "empty" {
  listen = 9001
  static { endpoints = ["10.0.0.1:80"] }
  accept_proxy {
    from    = []
    timeout = "never"
  }
  send_proxy = "v3"
}

service "names" {
  listen = 9002
  static { endpoints = ["10.0.0.1:80"] }
  accept_proxy { from = ["lb.example.com", "10.0.0.1/8"] }
}

service "dns" {
  protocol = "udp"
  listen   = 9003
  static { endpoints = ["10.0.0.1:53"] }
  accept_proxy { from = ["10.0.0.0/8"] }
  send_proxy = "v2"
}
