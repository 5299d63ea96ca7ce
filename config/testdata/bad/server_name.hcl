service "static" {
  listen = 9000
  static {
    endpoints = ["10.0.0.5:443"]
  }
  endpoint_tls {
    server_name_meta = "name"
  }
}

service "both" {
  listen = 9001
  endpoint_tls {
    server_name      = "web.example.com"
    server_name_meta = "name"
    server_name_tag  = "name="
  }
}

service "key" {
  listen = 9002
  endpoint_tls {
    server_name_meta = "tls.name"
  }
}

service "empty" {
  listen = 9003
  endpoint_tls {
    server_name_tag = ""
  }
}
