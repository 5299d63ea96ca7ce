service "a" { listen = 21114, protocol = "tcp" }
