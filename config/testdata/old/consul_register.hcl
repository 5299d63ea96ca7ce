consul {
  address  = ["127.0.0.1:8500", "10.0.0.2:8500"]
  register = true
}
service "web" {
  listen = 9000
}
