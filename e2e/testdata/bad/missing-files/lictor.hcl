consul {
  address    = "https://127.0.0.1:8501"
  token_file = "no-such-token"

  tls {
    ca_file = "no-such-ca.pem"
  }
}

service "web" {
  listen = "127.0.0.1:9000"
}
