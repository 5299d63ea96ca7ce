# What each Lictor needs for Prometheus. The file stands beside those with services in /etc/lictor. If one of these has
# a block consul or admin already, write the arguments there.
consul { register = true } # Prometheus finds each Lictor in Consul

admin {
  listen     = "0.0.0.0:8510"            # other hosts may ask, but must send the token
  token_file = "/etc/lictor/admin-token" # the same token on all hosts
}
