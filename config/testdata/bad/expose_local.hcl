mesh {
  bind  = "fe80::1%eth0"
  ports = "0-70000"
}

service "web" {
  listen = 9000
  static {
    endpoints = ["127.0.0.1:9001"]
  }
}

service "back" {
  listen = 9001
  static {
    endpoints = ["127.0.0.1:9000"]
  }
}

expose "web" {
  local = 9000
}
