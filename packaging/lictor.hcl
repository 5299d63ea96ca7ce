# The configuration of Lictor. See lictor.hcl(5) for every argument, and /usr/share/doc/lictor/examples.
# Other *.hcl files in this folder count too. After a change: lictor validate /etc/lictor && systemctl reload lictor
#
# Begin with a service, then: systemctl enable --now lictor

# service "web" { listen = "127.0.0.1:9000" }
