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
  accept_proxy {
    from    = ["10.0.0.0/8"]
    timeout = "1s"
  }
  send_proxy = "v1"
}

service "first" {
  protocol       = "udp"
  listen         = 9004
  responses      = 0
  send_proxy     = "v2"
  send_proxy_udp = "first"
  static { endpoints = ["10.0.0.1:53"] }
}

service "alone" {
  protocol       = "udp"
  listen         = 9005
  send_proxy_udp = "some"
  static { endpoints = ["10.0.0.1:53"] }
}

service "tcp" {
  listen         = 9006
  send_proxy     = "v2"
  send_proxy_udp = "each"
  static { endpoints = ["10.0.0.1:80"] }
}
