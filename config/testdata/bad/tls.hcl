service "nothing" {
  listen = 9000
  tls {}
}

service "halves" {
  listen = 9001
  tls {
    cert_file = "testdata/empty"
    timeout   = "0s"
    alpn      = ["h2", ""]
    certificate {
      key_file = "testdata/none.key"
    }
    certificate {}
  }
  endpoint_tls {
    ca_file   = "testdata/none.pem"
    cert_file = "testdata/empty"
  }
}

service "versions" {
  listen = 9002
  tls {
    cert_file      = "testdata/empty"
    key_file       = "testdata/empty"
    client_ca_file = "testdata/empty"
    min_version    = "1.1"
    ca_file        = "testdata/empty"
  }
  endpoint_tls {
    min_version    = "TLSv1.2"
    client_ca_file = "testdata/empty"
  }
}

service "udp" {
  listen   = 9003
  protocol = "udp"
  tls {
    cert_file = "testdata/empty"
  }
  endpoint_tls {}
}
