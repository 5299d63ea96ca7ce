log_levl = "info"
sevice "a" {
  listen = 9000
}
service "web" {
  lisen          = 9001
  idle-timeout   = "1s"
  maximum_number = 3
  consul {
    servce = "web"
  }
  statik {
  }
}
service "b" {
  listen = 9002
  static {
    endpoint = ["10.0.0.5:80"]
  }
}
consul {
  adress = "127.0.0.1:8500"
  tls {
    cafile = "ca.pem"
  }
}
