zone   = "eu/eu-a"
region = ""
service "a" {
  listen = 9000
  prefer = "rack"
}
service "b" {
  listen = 9001
  prefer = "meta:"
}
service "c" {
  listen = 9002
  prefer = "meta:a b"
}
service "d" {
  listen        = 9003
  prefer_strict = true
}
service "e" {
  listen        = 9004
  prefer        = "zone"
  prefer_strict = "yes"
  static {
    endpoints = ["10.0.0.1:80"]
  }
}
service "f" {
  listen = 9005
  prefer = ["zone"]
  consul {
    prefer = "zone"
  }
}
