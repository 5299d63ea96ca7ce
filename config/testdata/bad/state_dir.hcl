state_dir = "testdata/bad/state_dir.hcl"

service "web" {
  listen = 9000
}
