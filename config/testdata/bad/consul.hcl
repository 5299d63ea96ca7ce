consul {
  max_watches = 0
  address    = "127.0.0.1"
  token      = "5a2bf0c2-1d2e"
  token_file = "testdata/nowhere"
  tls {
    ca_file   = "testdata/nowhere.pem"
    ca_path   = "testdata/nowhere.d"
    cert_file = "testdata/nowhere.crt"
  }
}
consul {
}
service "web" {
  listen = 9000
}
