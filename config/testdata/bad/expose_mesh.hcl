mesh {
  bind  = "0.0.0.0"
  ports = "300"
  as    = "web"
}

mesh {
  bind = "10.0.0.6"
}

expose "web" {}
