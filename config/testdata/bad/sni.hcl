service "bad" {
  listen = 9000
  sni = [
    "*", "192.0.2.1", "https://a.example", "a.*.example",
    "bücher.example", "a..example", "a b",
    "A.example", "a.example.", 7
  ]
}

service "empty" {
  listen = 9001
  sni    = []
}

service "no-list" {
  listen = 9002
  sni    = "a.example"
}

service "udp" {
  listen   = 9003
  protocol = "udp"
  sni      = ["a.example"]
}

service "first" {
  listen = ["127.0.0.1:9004", "unix:///run/shared.sock"]
  sni    = ["a.example", "*.b.example"]
}

service "second" {
  listen = [9004, "unix:///run/shared.sock mode=0600"]
  sni    = ["c.example", "*.B.example."]
  accept_proxy {
    from = ["10.0.0.0/8"]
  }
}

service "rest" {
  listen = 9004
}

service "another-rest" {
  listen = 9004
}

service "plain" {
  listen = 9005
}

service "also-plain" {
  listen = 9005
}

service "all-addresses" {
  listen = "0.0.0.0:9004"
  sni    = ["d.example"]
}

service "twice" {
  listen = [9006, 9006]
  sni    = ["a.example"]
}

service "loop" {
  listen = 9007
  sni    = ["a.example"]
  static {
    endpoints = ["127.0.0.1:9008"]
  }
}

service "sharer" {
  listen = 9008
  sni    = ["b.example"]
}

service "back" {
  listen = 9008
  sni    = ["a.example"]
  static {
    endpoints = ["127.0.0.1:9007"]
  }
}
