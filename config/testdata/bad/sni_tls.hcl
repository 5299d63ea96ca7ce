service "a" {
  listen = 9000
  sni    = ["a.example"]
  endpoint_tls {}
}

service "b" {
  listen = 9001
  sni    = ["b.example"]
}

service "rest" {
  listen = 9001
  endpoint_tls {}
}
