admin { listen = "unix:///run/lictor/admin.sock" }
service "api" {
  listen = 9000
  static { endpoints = ["unix:///run/lictor/admin.sock"] }
}
service "self" {
  listen = "unix:///run/self.sock"
  static { endpoints = ["unix:///run/self.sock", "127.0.0.1:9001"] }
}
service "back" {
  listen = 9001
  static { endpoints = ["unix:///run/self.sock"] }
}
