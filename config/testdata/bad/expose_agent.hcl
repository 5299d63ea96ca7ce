consul { address = ["10.0.0.9:8500", "127.0.0.1:8500"] }
mesh { bind = "10.0.0.5" }
expose "web" {}
