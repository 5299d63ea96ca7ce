service "web" {
  listen = "127.0.0.1:9000"
}

service "api" {
  listen = ["127.0.0.1:9001", "127.0.0.1:9000"]
}
