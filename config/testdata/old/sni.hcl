service "mysql" {
  listen = "0.0.0.0:9000"
  sni    = ["mysql.example.com"]
  static {
    endpoints = ["10.0.0.7:3307", "10.0.0.8:3306"]
  }
}

service "mail" {
  listen = 25
}

service "imap" {
  listen = 143
  sni    = ["imap.example.com"]
}
