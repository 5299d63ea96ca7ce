admin { listen = "unix:///run/lictor/admin.sock" }
service "web" { listen = "unix:///run/lictor/admin.sock mode=0600" }
