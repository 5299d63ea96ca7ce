# The configuration of Lictor. lictor.hcl(5) describes every argument; /usr/share/doc/lictor/examples has an example.
# Lictor reads all *.hcl files in this folder. After a change: lictor validate /etc/lictor && systemctl reload lictor
#
# Write a service, then start Lictor: systemctl enable --now lictor

# service "web" { listen = "127.0.0.1:9000" }
