admin {
  listen     = "0.0.0.0:8510"
  token      = "of no use here"
  hosts      = ["http://lictor", "10.0.0.1", 5]
}
service "web" { listen = 8510 }
