consul {
  address = []
  tls {
    ca_file = "testdata/nowhere.pem"
  }
}
service "web" {
  listen = 9000
}
