service "web" {
  listen = 9000
  consul {
    service = ""
    tags    = "v2"
    filter  = 7
  }
}
service "api" {
  listen = 9001
  consul {
    tags = ["v2", "", 3]
  }
  consul {
    near = node
  }
}
