log_level = "inof"
log_json  = "perhaps"
service "a" {
  listen   = 9000
  protocol = "tpc"
  balance  = "round-robin"
}
service "b" {
  listen   = 9001
  protocol = tcp
  balance  = "least_connection"
}
