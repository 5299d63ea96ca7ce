service "db" {
  listen = "127.0.0.1:5432"

  consul {
    service = "postgres"
  }

  static {
    endpoints = ["10.0.0.5:5432"]
  }
}
