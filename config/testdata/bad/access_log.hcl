access_log {
  format = "xml"
  sample = 0
}
service "web" { listen = 9000 }
