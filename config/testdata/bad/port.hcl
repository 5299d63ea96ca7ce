service "web" {
  listen = 9000
  consul {
    port    = 9100
    address = "10.0.0.1"
  }
  consul {
    port    = ""
    address = "virtual"
  }
  consul {
    ports    = "metrics"
    address  = "https://consul.example.com:8501"
    adress   = "wan"
  }
  consul {
    port    = "PPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPP"
    address = ["lan", "wan"]
  }
}
