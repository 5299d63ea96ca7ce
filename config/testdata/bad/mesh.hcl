service "nobody" {
  listen = 9000
  mesh {}
}

service "wildcard" {
  listen = 9001
  mesh { as = "*" }
}

service "folder" {
  listen = 9002
  mesh { as = ".." }
}

service "udp" {
  listen   = 9003
  protocol = "udp"
  mesh { as = "web" }
}

service "beside" {
  listen      = 9004
  transparent = true
  mesh { as = "web" }
  endpoint_tls {}
  static {
    endpoints = ["10.0.0.5:443"]
  }
  check {
    http = "/health"
  }
}

service "queries" {
  listen = 9005
  mesh { as = "web" }
  consul {
    datacenters  = ["dc1", "dc2"]
    socket_paths = ["/run/*"]
  }
  consul {
    peer = "east"
  }
}

service "prepared" {
  listen = 9006
  mesh { as = "web" }
  consul {
    prepared_query = "nearest"
    port           = "admin"
  }
}

service "wide" {
  listen = [9007, "0.0.0.0:9008"]
  deny   = ["10.0.0.1"]
  mesh { as = "web" }
}

service "address" {
  listen = "[2001:db8::7]:9009"
  mesh { as = "web" }
  mesh { as = "api" }
}

service "misspelt" {
  listen = 9010
  mesh {
    identity = "web"
    ass      = "web"
  }
}

service "name" {
  listen = 9011
  sni    = ["db.example.com"]
  mesh { as = "web" }
}

service "rest" {
  listen = 9011
  mesh { as = "web" }
}

service "argument" {
  listen = 9012
  mesh   = "web"
}

service "block" {
  listen {}
  mesh { as = "web" }
}
