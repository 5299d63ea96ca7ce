admin { listen = 9000 }
service "web" { listen = 9000 }
