admin { listen = "unix:///run/lictor/admin.sock" }
service "api" {
  listen = 9000
  static { endpoints = ["unix:///run/lictor/admin.sock"] }
}
