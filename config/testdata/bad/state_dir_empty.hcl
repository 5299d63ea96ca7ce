state_dir = ""

service "web" {
  listen = 9000
}
