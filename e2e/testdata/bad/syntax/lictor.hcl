service "web" {
  listen = "127.0.0.1:9000
}
