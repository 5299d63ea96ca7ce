consul {
  address = "http://consul.example.com:8501"
  tls {
    key_file             = "testdata/empty"
    ca_file              = "testdata/empty"
    insecure_skip_verify = 1
  }
}
service "web" {
  listen = 9000
}
