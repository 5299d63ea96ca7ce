admin {
  listen     = "unix://admin.sock"
  token_file = "/nonexistent/token"
}
admin { listen = "everywhere" }
service "web" { listen = 9000 }
