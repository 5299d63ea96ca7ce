consul {
  address = [
    "https://10.0.0.1:8501",
    "https://10.0.0.1:8501/",
    "10.0.0.2:8500",
    "unix:///run/consul.sock",
    "10.0.0.3",
    8500,
  ]
  namespace = "*"
  partition = "a/b"
}
service "web" {
  listen = 9000
  consul {
    namespace = ""
    partition = "-a"
  }
}
