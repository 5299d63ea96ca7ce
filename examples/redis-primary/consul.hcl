# For the Consul agent on each Redis server. The agent needs enable_local_script_checks = true.
service {
  name = "redis-primary"
  port = 6379
  check {
    id       = "redis-role"
    name     = "the role is master"
    args     = ["sh", "-c", "redis-cli -p 6379 role | head -n 1 | grep -qx master || exit 2"]
    interval = "1s"
    timeout  = "1s"
  }
}
