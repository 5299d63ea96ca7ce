# Several datacenters: port 9000 of this host leads to the service "orders" in dc1. If dc1 has too few healthy
# instances, or all of them fail from here, it leads to dc2, and later back.
#
# Change: the name in Consul, the port, and the datacenters, this host's own first. They must be joined over the WAN.
# Try:    lictor run -config multi-datacenter.hcl
#         lictor status orders          # names the datacenter in use
#         consul maint -enable -service ID   # on each host of dc1 that has an instance
service "orders" {
  listen         = 9000
  failover_below = 1     # dc1 needs this many healthy instances
  failback_hold  = "30s" # and must have them for this long before clients return to it
  consul { datacenters = ["dc1", "dc2"] }
}
