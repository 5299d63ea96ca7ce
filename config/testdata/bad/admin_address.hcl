admin {
  listen     = ["127.0.0.1:8510"]
  token_file = ""
}
service "web" { listen = 9000 }
