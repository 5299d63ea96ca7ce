service "a" { listen = 21114
  static { endpoints = ["127.0.0.1:9"] }
}
