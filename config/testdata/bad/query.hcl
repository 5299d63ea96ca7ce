service "web" {
  listen = 9000
  consul {
    service = ""
    tags    = "v2"
    filter  = 7
  }
}
service "api" {
  listen = 9001
  consul {
    tags = ["v2", "", 3]
  }
  consul {
    near = node
  }
}
service "trust" {
  listen = 9002
  consul {
    statuses  = ["passing", "warn"]
    max_drop  = 101
    drop_hold = 10
    hold_max  = "1m"
    hold_max {
      critical   = "never"
      unmatched  = "10s"
    }
  }
}
service "ailing" {
  listen = 9003
  consul {
    statuses = ["warning"]
    max_drop = "half"
  }
}
service "sockets" {
  listen = 9020
  consul {
    socket_paths = ["run/app/*", "/run/app/../*", "/run/[app", "/run/app/*"]
  }
  consul {
    peer         = "other"
    socket_paths = ["/run/app/*"]
  }
}
service "datagrams" {
  listen   = 9020
  protocol = "udp"
  consul {
    socket_paths = ["/run/app/*"]
  }
}
