service "elements" {
  listen = 9000
  allow = [
    "10.1.2.3/8",
    "::ffff:10.1.2.3/104",
    "2001:db8::7/32",
    "10.0.0.0/33",
    "2001:db8::/129",
    "10.0.0.0/",
    "10.0.0.7/255.0.0.0",
    "10.0.0.0/255.0.255.0",
    "10.0.0.7:80",
    "[2001:db8::7]:80",
    "0.0.0.0",
    "::",
    "fe80::1%eth0",
    "fe80::%eth0/64",
    "localhost",
    "db.example.com",
    "10.0.0.1-10.0.0.9",
    "10.0.0",
    "all",
    "",
    10,
    web,
  ]
}
service "empty" {
  listen = 9001
  allow  = []
  deny   = []
}
service "text" {
  listen = 9002
  allow  = "10.0.0.0/8"
}
service "both" {
  listen = 9003
  allow  = ["10.1.0.0/16", "10.0.0.7", "192.168.0.0/16"]
  deny   = ["10.0.0.0/8", "192.168.7.0/24"]
}
service "all" {
  listen   = 9004
  protocol = "udp"
  allow    = ["::1"]
  deny     = ["::/0"]
}
