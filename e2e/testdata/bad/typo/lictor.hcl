service "web" {
  lisen = "127.0.0.1:9000"
}
