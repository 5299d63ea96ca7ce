service "none" {
}
service "empty" {
  listen = []
}
service "bad" {
  listen = [
    "*:9001",
    "127.0.0.1",
    "::1:9003",
    "::1",
    "web.example.com:9005",
    "127.0.0.1:http",
    "127.0.0.1:65536",
    70000,
    -1,
    9.5,
    "tcp://127.0.0.1:9010",
    "",
    "localhost",
    true,
    "127.0.0.1:",
  ]
}
service "object" {
  listen = { port = 9000 }
}
service "unquoted" {
  listen = localhost
}
service "unfit" {
  listen = [
    "224.0.0.5:9020",
    "[ff02::1%lo]:9021",
    "255.255.255.255:9022",
    "[fe80::1]:9023",
  ]
}
service "sockets" {
  listen = [
    "unix:///run/a.sock",
    "unix:///run/a.sock mode=0600",
    "unix://run/b.sock",
    "unix:///run/../b.sock",
    "unix:///run/c.sock mode=0888",
    "unix:///run/c.sock mode=0440",
    "unix:///run/c.sock mode=0660 owner=",
    "unix:///run/c.sock user=app",
    "unix://",
  ]
}
service "datagrams" {
  listen   = "unix:///run/d.sock"
  protocol = "udp"
}
