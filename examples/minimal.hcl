# Minimal: port 9000 of this host leads to the healthy instances of the service "web" in Consul.
#
# Change: the name, which is the name in Consul, and the port.
# Try:    lictor run -config minimal.hcl
#         curl http://127.0.0.1:9000/
service "web" { listen = 9000 }
