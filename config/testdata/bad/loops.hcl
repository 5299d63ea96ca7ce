admin { listen = "127.0.0.1:9100" }
service "self" {
  listen = ["127.0.0.1:9001", "[::1]:9002", "0.0.0.0:9003", "[::]:9004"]
  static {
    endpoints = [
      "127.0.0.1:9001",
      "localhost:9001",
      "localhost.:9002",
      "[::1]:9002",
      "127.0.0.1:9003",
      "127.7.7.7:9003",
      "[::1]:9004",
      "[::ffff:127.0.0.1]:9004",
      "127.0.0.2:9001", # another address
      "[::1]:9003",     # IPv4 only
      "127.0.0.1:9002", # IPv6 only
      "10.0.0.5:9003",  # may be this host, which shows only at run time
    ]
  }
}
service "b" {
  listen = 9011
  static { endpoints = ["10.0.0.5:80", "127.0.0.1:9012"] }
}
service "a" {
  listen = 9010
  static { endpoints = ["127.0.0.1:9011"] }
}
service "c" {
  listen = 9012
  consul {}
  static { endpoints = ["127.0.0.1:9010", "127.0.0.1:9020"] }
}
service "chain" {
  listen = 9020
  static { endpoints = ["127.0.0.1:9021", "127.0.0.1:9022"] }
}
service "chain2" {
  listen = 9021
  static { endpoints = ["127.0.0.1:9022"] }
}
service "end" {
  listen = 9022
  static { endpoints = ["10.0.0.5:80"] }
}
service "udp" {
  listen   = 9030
  protocol = "udp"
  static { endpoints = ["127.0.0.1:9031", "127.0.0.1:9100", "127.0.0.1:9011"] }
}
service "tcp" {
  listen = 9031
  static { endpoints = ["127.0.0.1:9030", "localhost:9100"] }
}
service "udp2" {
  listen   = 9031
  protocol = "udp"
  static { endpoints = ["localhost:9030"] }
}
