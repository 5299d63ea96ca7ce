service "both" {
  listen = 9000
  consul {}
  static {
    endpoints = ["10.0.0.5:80"]
  }
}
service "missing" {
  listen = 9001
  static {}
}
service "empty" {
  listen = 9002
  static {
    endpoints = []
  }
}
service "elements" {
  listen = 9003
  static {
    endpoints = [
      "10.0.0.5",
      "10.0.0.5:0",
      "10.0.0.5:http",
      "2001:db8::7:80",
      "0.0.0.0:80",
      "http://10.0.0.5:80",
      "10.0.0.555:80",
      "-db.example.com:80",
      "224.0.0.1:80",
      "[ff02::1]:80",
      "255.255.255.255:80",
      "[::ffff:0.0.0.0]:80",
      "10.0.0.6:80",
      "10.0.0.6:80",
      "127.0.0.1:9003",
      80,
      web,
    ]
  }
}
service "string" {
  listen = 9004
  static {
    endpoints = "10.0.0.5:80"
  }
}
service "link" {
  listen = 9006
  static {
    endpoints = ["[fe80::1]:80", "[fe80::1%2]:80"]
  }
}
service "sockets" {
  listen = 9007
  static {
    endpoints = ["unix:///run/a.sock", "unix:///run/a.sock", "unix://run/b.sock", "unix:///run/../c.sock", "unix://"]
  }
}
service "datagrams" {
  listen   = 9007
  protocol = "udp"
  static { endpoints = ["unix:///run/a.sock"] }
}
