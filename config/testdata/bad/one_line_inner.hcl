service "a" {
  listen = 21114
  consul {
    check { interval = "1s"
      timeout = "1s"
    }
  }
}
