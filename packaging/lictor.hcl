# The configuration of Lictor. lictor.hcl(5) describes every argument; /usr/share/doc/lictor/examples has examples.
# Lictor reads all *.hcl files in this folder. After a change: lictor validate /etc/lictor && systemctl reload lictor
#
# Write a service, then start Lictor: systemctl enable --now lictor

# After a restart, the instances that Lictor saves here serve until Consul answers.
state_dir = "/var/lib/lictor"

# service "web" { listen = "127.0.0.1:9000" }

# A line for each connection and session. logrotate compresses the file once a week and keeps it for eight weeks.
# access_log { path = "/var/log/lictor/access.log" }
