# The configuration of the container, at /etc/lictor/lictor.hcl of the host.
state_dir      = "/var/lib/lictor" # the last good instances, for a start while Consul is away
shutdown_grace = "20s"

service "web" { listen = 9000 }
