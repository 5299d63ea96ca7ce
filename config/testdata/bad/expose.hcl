mesh {
  bind  = "10.0.0.5"
  ports = "22000-22009"
}

service "inside" {
  listen = ["0.0.0.0:22001", 22002, "10.0.0.5:22003"]
}

service "mesh:web" {
  listen = 9000
}

service "mesh:webs" {
  listen = 9001
}

admin {
  listen     = "10.0.0.5:22009"
  token_file = "testdata/bad/empty_token.hcl"
}

expose "web" {
  local = "127.0.0.1:8080"
}

expose "web" {}

expose "*" {}

expose "" {}

expose {}

expose "local" {
  local = "db.example.com:5432"
}

expose "path" {
  local = "unix:///run/app.sock"
}

expose "everywhere" {
  local = "0.0.0.0:8080"
}

expose "port" {
  local = 0
}

expose "truth" {
  local = true
}

expose "api" {
  local = "10.0.0.5:22009"
}

expose "words" {
  intentions         = "enforced"
  unknown_intentions = "permit"
  allow_identities   = ["web", "spiffe://x/agent/y", "web*"]
  intention          = "enforce"
  allow_identity     = "web"
  listen             = "10.0.0.5:20000"
  max_age_grace      = "1s"
  protocol           = "udp"
  mesh { as = "web" }
}

expose "empty" {
  allow_identities = []
  allow            = []
}

expose "numbers" {
  handshake_timeout            = "0s"
  max_connections_per_identity = 0
  max_age                      = "x"
  send_proxy                   = "v3"
}
