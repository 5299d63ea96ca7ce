consul {
  address    = "tcp://127.0.0.1:8500"
  token_file = "testdata/empty"
}
service "web" {
  listen = 9000
}
