metrics {
  endpoints = "no"
  endpoint  = false
}
metrics { endpoints = false }
service "web" { listen = 9000 }
