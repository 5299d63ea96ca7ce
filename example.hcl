# A complete configuration of Lictor. It shows every argument, and most arguments can be left out. Some arguments are
# commented out, because they need a file or exclude another argument. A small configuration is one line:
#
#   service "web" { listen = "127.0.0.1:9000" }
#
# Try it:  lictor validate example.hcl
#          lictor run -config example.hcl
#
# Durations are text with a unit: "500ms", "10s", "1h30m". "0s" means no time at all. "never" means off or unlimited:
# the time never runs out, or the count is never reached. Relative paths start at the working directory of the lictor
# process. A configuration may have several files: -config also takes a directory, and may be repeated.

# The lowest level of messages in the log: trace, debug, info, warn, error or off.
log_level = "info"

# Makes each log line a JSON object instead of text.
log_json = false

# How long open connections may continue after SIGINT or SIGTERM. Then Lictor cuts them. "0s" cuts them at once.
shutdown_grace = "10s"

# How long connections may continue in the old process after "lictor upgrade". "never": the old process does not cut
# them, and ends with its last connection.
upgrade_grace = "never"

# How Lictor moves bytes: "auto" selects event loops on Linux and goroutines elsewhere; "portable" selects goroutines.
engine = "auto"

# The folder in which Lictor saves the last good instances of each service. After a restart Lictor uses them until
# Consul answers. Lictor creates the folder if it is missing. Without it, a start while Consul is away has no instances.
# state_dir = "/var/lib/lictor"

# Where this host is, for services with prefer. The default is the locality of the agent's node.
# region = "eu"
# zone   = "eu-a"

# Whether the connections of clients on this host go straight to the instances, by programs in the Linux kernel
# (docs/kernel-path.md): off, auto (where service and host allow it) or on (no start where they do not). The default is
# off. Each service may have its own. kernel_path_cgroup limits that to the processes of a control group.
# kernel_path        = "auto"
# kernel_path_cgroup = "/system.slice/app.service"

# The admin listener serves a page for browsers, metrics for Prometheus (/metrics), and the API that "lictor status" and
# similar commands use (docs/api.md). The block and each of its arguments can be left out.
admin {
  # "off", an address as in a service, or unix:///path/to/socket, which only its owner may open. The default is
  # admin.sock in the first runtime directory that Lictor can use: the one from systemd, /run/lictor, or lictor in
  # $XDG_RUNTIME_DIR. An address that other hosts can reach requires a token.
  listen = "127.0.0.1:8510"

  # The file with the token that every request needs: as a bearer token, or from a browser as the password with any
  # name.
  # token_file = "/etc/lictor/admin-token"

  # Names under which browsers may reach the admin API, besides this host's own name, localhost and IP addresses.
  hosts = ["lictor.example.com"]
}

# What /metrics shows (docs/metrics.md). The block can be left out.
metrics {
  # Each instance has series of its own. false leaves them out, for a Prometheus that stores too many series.
  endpoints = true
}

# Writes a line for each TCP connection and UDP session at its end: client, instance, times, bytes, how it ended and
# which side ended it (docs/operations.md). Connections never wait for it: lines that cannot be written fast enough are
# dropped and counted. Without the block there is no access log.
# access_log {
#   # Lictor opens a new file at the path if the file was renamed, and at SIGHUP.
#   path = "/var/log/lictor/access.log"
#
#   # "json" or "text".
#   format = "json"
#
#   # A line for one of so many connections and sessions. A connection that no instance served always gets a line.
#   sample = 1
# }

# The connection to Consul. The block can be left out. An argument that is left out takes its value from the environment
# variable that Consul's own tools use: CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_AUTH,
# CONSUL_HTTP_SSL, CONSUL_HTTP_SSL_VERIFY, CONSUL_CACERT, CONSUL_CAPATH, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY,
# CONSUL_TLS_SERVER_NAME, CONSUL_NAMESPACE and CONSUL_PARTITION.
consul {
  # host:port, http://host:port, https://host:port or unix:///path/to/socket: the agent on this host. Or a list of agents
  # or servers of one cluster, in order of preference, all with https:// or none. Lictor uses one of them at a time, and
  # moves on when that one does not answer. It goes back at a reload.
  address = "127.0.0.1:8500"
  # address = ["https://10.0.0.1:8501", "https://10.0.0.2:8501"]

  # The ACL token, in a file or as text, but not both. A file is better. The token needs service:read and node:read.
  # token_file = "/etc/lictor/token"
  # token      = "..."

  # The datacenter of all services that do not set their own. The default is the agent's datacenter.
  # datacenter = "dc1"

  # The same for the namespace and the admin partition, with Consul Enterprise only.
  # namespace = "team-a"
  # partition = "part-1"

  # How many queries Lictor keeps open at once, with every address but https://. Over plain HTTP and Unix sockets each
  # query needs a connection of its own. The agent allows each client address 200 (limits.http_max_conns_per_client),
  # for all programs together. Services that watch the same thing share a query. If there are more distinct queries,
  # they take turns, and Lictor sees changes up to 5 seconds later.
  max_watches = 150

  # Registers this Lictor in Consul as the service "lictor". Its check passes when Consul has answered for all services.
  # While Lictor shuts down, the registration is in maintenance; at the end it is removed. The token needs service:write
  # for "lictor".
  register = false

  # For an address with https:// only.
  # tls {
  #   ca_file              = "/etc/lictor/ca.pem"   # who may sign Consul's certificate; or a folder of such files:
  #   ca_path              = "/etc/lictor/ca.d"
  #   cert_file            = "/etc/lictor/cert.pem" # Lictor's client certificate and its key; both or none
  #   key_file             = "/etc/lictor/key.pem"
  #   server_name          = "server.dc1.consul"    # the name in Consul's certificate, if it is not that of the address
  #   insecure_skip_verify = false                  # true accepts any certificate; only to try things out
  # }
}

# A service: clients connect to listen, and Lictor forwards each connection to a healthy instance. The label is the name
# in logs, metrics and status. It is also the name of the service in Consul, unless the consul block sets another one.
service "web" {
  # One address or a list of them. A bare port, 9000 or ":9000", means 127.0.0.1. Write "0.0.0.0:9000" for all IPv4
  # addresses of the host, and "[::]:9000" for all IPv6 and IPv4 addresses. With port 0 the kernel chooses a port, and
  # the log names it.
  # A Unix socket is also possible, over TCP: "unix:///run/app/web.sock mode=0660 group=app".
  listen = ["127.0.0.1:9000", "[::1]:9000"]

  # Lets services share a listener: TLS clients choose by the name of the server that they want. Lictor decrypts nothing.
  # "*." stands for exactly one label. One of the services may have no sni; it gets all other clients.
  # sni = ["db.example.com", "*.example.com"]

  # tcp or udp.
  protocol = "tcp"

  # The clients that may come, by IP address, and those that may not, even if they are in allow. The default is that all
  # may come. Lictor resets a connection of any other client at once, and drops its datagrams.
  # allow = ["10.0.0.0/8", "::1"]
  # deny  = ["10.0.0.7", "10.9.0.0/16"]

  # The policy that chooses an instance for each new client:
  #   round_robin        uses the instances in turn, in proportion to their weights
  #   least_connections  uses the instance with the fewest open connections for its weight
  #   random_two         draws two instances by weight and uses the one with fewer connections for its weight: nearly as
  #                      even, and several Lictors do not all choose the same instance
  #   source_hash        always uses the same instance for a client's IP address; if an instance leaves, only its
  #                      clients move
  balance = "round_robin"

  # Keeps each client, known by its IP address, on its instance until the client has not connected for this time. It
  # works with every policy. "0s" disables it. Lictor remembers the last 65,536 clients.
  sticky = "0s"

  # How many failures in a row eject an instance, whatever Consul says. An instance fails if it does not answer in time,
  # or resets connections before it has sent anything. A refused connection ejects at once. After 1s, one connection
  # tries the instance; the pause doubles up to 1m. All services of the same protocol with an instance at the same
  # address share the ejection. "never": this service ejects no instance.
  max_fails = 2

  # If ejections leave fewer instances than this share, Lictor ignores them and uses every instance, because the fault
  # is more likely on this host. "0%": Lictor never ignores ejections.
  min_available = "50%"

  # How long a new instance takes to reach its full share of clients, and also an instance when its ejection ends. "0s":
  # it has its full share at once.
  slow_start = "0s"

  # Keeps clients at instances that share this with this host: "zone", "region", "node", or "meta:" and a key of meta. If
  # near instances have less than their fair share of the weight, some clients go to others, unless prefer_strict is
  # true. The default is to prefer none.
  # prefer        = "zone"
  # prefer_strict = false

  # Limits of open connections: to all instances together, and to each instance. The default is "never": no limit.
  # max_connections              = 10000
  # max_connections_per_endpoint = 500

  # Limit of the connections or UDP sessions of each client, by its IP address (for IPv6, its /64). Lictor resets a
  # connection beyond it, and drops a datagram that would begin a session beyond it. The default is "never": no limit.
  # max_connections_per_client = 100

  # Send each instance a header of the PROXY protocol with the client's address. Every instance must expect it. UDP
  # services need "v2".
  # send_proxy = "v2"

  # Expect such a header from each client, if the clients are proxies with these addresses. Over UDP, each
  # datagram must begin with a header of version 2, and there is no timeout.
  # accept_proxy {
  #   from    = ["10.0.0.0/8"]
  #   timeout = "3s"
  # }

  # Speak TLS with the clients, and show them this certificate. The files can be replaced at any time. Further
  # certificates are chosen by the name that a client asks for. With client_ca_file, clients need a certificate.
  # tls {
  #   cert_file      = "/etc/lictor/cert.pem"
  #   key_file       = "/etc/lictor/key.pem"
  #   client_ca_file = "/etc/lictor/ca.pem"
  #   min_version    = "1.2"
  #   alpn           = ["h2", "http/1.1"]
  #   timeout        = "10s"
  #   certificate {
  #     cert_file = "/etc/lictor/cert.pem"
  #     key_file  = "/etc/lictor/key.pem"
  #   }
  # }

  # Speak TLS with the instances, and verify their certificates. The block may be empty.
  # endpoint_tls {
  #   ca_file              = "/etc/lictor/ca.pem" # the default is the system's authorities
  #   ca_path              = "/etc/lictor/ca.d"   # a folder instead of a file
  #   cert_file            = "/etc/lictor/cert.pem"
  #   key_file             = "/etc/lictor/key.pem"
  #   server_name          = "web.example.com" # the default is the host name or address of each instance
  #   server_name_meta     = "tls_server_name" # instead: the name is in this key of each instance's meta
  #   server_name_tag      = "tls-name="       # instead: the name is in the tag that begins so
  #   insecure_skip_verify = false
  #   min_version          = "1.2"
  #   alpn                 = ["http/1.1"]
  # }

  # Reach the instances through Consul's service mesh, with the identity of a service.
  # mesh {
  #   as = "web" # required; the token needs service:write for this name
  # }

  # Connect to each instance from the client's address. Linux only; docs/operations.md says how to set up the host.
  # transparent = true

  # Clients on this host connect straight to the instances, as kernel_path at the top says. Not with an access_log, a
  # limit, a time or TLS.
  # kernel_path = "on"

  # If every instance is at its limit, this many connections wait in a queue, each for this time at most. Clients take
  # turns, and one client alone may have four fifths of the queue. queue_timeout = "0s": none waits. TCP only.
  max_queue     = 1024
  queue_timeout = "5s"

  # After the service has lost its last instance, new clients wait in that queue for another one. The time counts from
  # the loss. "0s": Lictor resets them at once. TCP only.
  empty_wait = "3s"

  # How long Lictor waits for an instance to accept a connection, before it tries another instance. TCP only.
  connect_timeout = "1s"

  # Closes a connection on which no data has moved for this time. "never": idle connections stay open.
  idle_timeout = "1h"

  # Closes a connection if one side has finished sending and the other side has sent nothing for this time. "never":
  # half-closed connections stay open. TCP only.
  half_close_timeout = "5m"

  # What happens to the connections of an instance that leaves. "finish": they continue until they end. "30s": they may
  # continue for this time, then Lictor resets them. "cut": Lictor resets them at once, on both sides; use it for a
  # database with a primary that moves. An instance that returns in time keeps its connections. Held instances have not
  # left, nor have those of a source after a failover. TCP only: UDP sessions move to another instance with their next
  # datagram. It is one setting for all reasons, or a block with one for each:
  # on_leave = "finish"
  on_leave {
    deregistered = "finish" # Consul's servers no longer have the instance at that address
    critical     = "finish" # its check or its node's is critical, it is in maintenance, or the check over HTTP fails
    unmatched    = "finish" # it is registered, but no longer matches the tags, the filter or the statuses
  }

  # The maximum age of a connection, so that old connections spread over new instances. It varies by up to a tenth.
  # Lictor closes an old connection at a quiet moment: no data has moved for a second, the last data came from the
  # instance, and everything has arrived. If no quiet moment comes within max_age_grace, Lictor resets it. After a
  # reload that changes max_age, the age of open connections counts from the reload. The default is "never": any age.
  # TCP only.
  # max_age       = "1h"
  # max_age_grace = "30s"

  # Selects instances from Consul's catalog. The block and each of its arguments can be left out.
  consul {
    service = "web"

    # Instances must have all of these tags.
    tags = ["v2"]

    # Instances must pass this expression in Consul's filter language.
    filter = "Service.Meta.version == `2`"

    # All checks of an instance and its node must have one of these statuses: "passing", which is always included, or
    # "warning". The share of connections follows Consul's Weights for the status. "critical" is also allowed in a
    # service whose check has http, see below.
    statuses = ["passing"]

    # Allows instances on this node that are registered with the path of a Unix socket. Whoever may register instances
    # chooses among these sockets. The default is to allow none.
    # socket_paths = ["/run/app/*"]

    # Uses the named port of each instance, and its tagged address. The defaults are the default port, and the address of
    # the service or of its node. Named ports need Consul 1.22.
    # port    = "metrics"
    # address = "wan"

    # If no instance is left, or more than max_drop percent of three or more instances vanish at once, Lictor asks
    # Consul's leader. If the leader confirms the loss, Lictor holds the vanished instances: they stay in use for a
    # while, unless they fail to answer. Deregistered instances stay for drop_hold. Instances that are critical, or gone
    # together with their node, stay for hold_max, as long as they can be reached. Instances in maintenance, and those
    # that no longer match tags or filter, leave at once. All holds end when as many new instances have come. max_drop =
    # 0 doubts every loss, 100 only the loss of all. "0s" holds nothing. hold_max = "1m" sets both reasons alike.
    max_drop  = 50
    drop_hold = "10s"
    # hold_max = "1m"
    hold_max {
      critical  = "1m" # its check or its node's is critical, as after a restart of an agent with long check intervals
      forgotten = "1m" # Consul has neither the instance nor its node, or the node came back without the instance
    }

    # The datacenter of the instances, or several in order of preference: see failover_below.
    # datacenter  = "dc2"
    # datacenters = ["dc1", "dc2"]

    # The namespace and the admin partition of the instances, with Consul Enterprise only.
    # namespace = "team-b"
    # partition = "part-2"

    # Instances that a peered cluster exports. Consul reports an unknown peer as having no instances. Lictor treats it
    # as an error, and also a peering that has ended if the token has peering:read.
    # peer = "cluster-b"

    # The instances that the prepared query with this name or ID returns. The query has its own service, tags and
    # filter. Lictor executes it every 5 seconds.
    # prepared_query = "nearest-web"

    # Asks Consul to sort the instances by distance from this node; _agent is the local agent's node. No policy of
    # balance uses the order. It is costly: Consul's servers, not the agent, answer such a query each time the service
    # changes.
    # near = "_agent"
  }
}

# A service with several sources of instances, in order of preference. Lictor uses the first source that has enough.
service "orders" {
  listen = 9002

  # How many healthy instances a source needs. Lictor leaves a source with fewer at once, for the next one that has
  # enough. A source that cannot be queried keeps its last good instances.
  failover_below = 1

  # "health" also leaves a source if all its instances fail from this host, and another source has one that does not
  # fail. "consul" leaves a source only if it has too few healthy instances in Consul.
  failover_on = "health"

  # How long an earlier source must be good before Lictor returns to it.
  failback_hold = "30s"

  consul { datacenters = ["dc1", "dc2"] }
  consul { peer = "cluster-b" }
  static { endpoints = ["10.9.0.5:80"] }
}

# A service over UDP. The datagrams of a client go to one instance as long as the client's session lives.
service "dns" {
  listen   = 9053
  protocol = "udp"

  # Ends a session without datagrams for this time. For UDP it cannot be "0s" or "never".
  idle_timeout = "1m"

  # Limits the sessions at once. A new session beyond the limit ends the one that has been idle longest. UDP only.
  max_sessions = 65536

  # How many datagrams answer each datagram of a client. A session ends as soon as these answers have come, so a short
  # exchange holds a socket only while it lasts. 0: no answers are expected, and those that come are dropped; clients
  # then share one socket for each instance. The default is "never": any number, and sessions end when they are idle.
  # UDP only.
  responses = 1

  # After how many datagrams of a client Lictor chooses another instance for it. 1 spreads every datagram; for syslog,
  # combine it with responses = 0. The default is "never": a client stays with its instance while its session lives. UDP
  # only.
  # requests = 1

  # Tell each instance the client's address, by a header of the PROXY protocol in each datagram, or in the first one of a
  # session. Every instance must expect it. The default is no header; with send_proxy it is "each".
  # send_proxy     = "v2"
  # send_proxy_udp = "first"

  # Checks instances from this host, if Consul does not check them. Over TCP the check is a connection; over UDP the
  # instance must answer a datagram. An instance that fails is ejected, see max_fails.
  check {
    interval = "10s"
    timeout  = "2s"
    send     = "ping" # UDP only, and required there: the datagram to send
    expect   = "pong" # the text with which the answer must begin

    # Requests this path from instances over HTTP instead. Instances that answer with a status of 2xx get clients. An
    # instance that stops answering keeps its clients for max_silence.
    # http        = "/primary"
    # port        = 8008 # the default is the instance's own port
    # max_silence = "30s"

    # Uses HTTPS. The block may be empty. Its arguments are those of tls in the consul block above.
    # tls {
    #   ca_file     = "/etc/lictor/ca.pem"
    #   server_name = "postgres.example.com" # the name in the certificates, if it is not the address of the instance
    # }
  }
}

# A service without Consul.
service "legacy" {
  listen = "127.0.0.1:9001"

  static {
    # host:port. The addresses of a host name may change.
    endpoints = ["10.0.0.5:80", "[2001:db8::7]:80", "db.example.com:5432"]
  }
}

# Where the services of this host that are exposed below are served to Consul's service mesh.
# mesh {
#   bind  = "10.0.0.5"    # required: the address of this host that Consul tells the others
#   ports = "21000-21255" # each instance of an exposed service takes one
# }

# Serve a service that is registered at this agent to the mesh: Lictor is its sidecar. The name is the one in Consul, and
# the token needs service:write for it and for "billing-sidecar-proxy". docs/mesh.md has a guide.
# expose "billing" {
#   # Where the service listens. The default is the port of each registration, on a loopback address.
#   local = "127.0.0.1:8080"
#
#   # "enforce": clients need a certificate of the mesh, and an intention that allows them. "permissive": clients without
#   # a certificate are served in plain text too, whatever the intentions say; for a migration only.
#   intentions = "enforce"
#
#   # What holds while Consul has not said which intentions there are: "deny" or "allow".
#   unknown_intentions = "deny"
#
#   # Only these services, if the intentions allow them: by name, or by SPIFFE ID. The default is to ask intentions only.
#   # allow_identities = ["web"]
#
#   # As in a service.
#   # allow           = ["10.0.0.0/8"]
#   # deny            = ["10.66.0.0/16"]
#   connect_timeout    = "1s"
#   idle_timeout       = "1h"
#   half_close_timeout = "5m"
#   # max_age         = "24h"
#   # max_age_grace   = "30s"
#   max_queue          = 1024
#   queue_timeout      = "5s"
#   # send_proxy      = "v2" # has the identity of the client too
#
#   # How long a client may take for its TLS handshake.
#   handshake_timeout = "10s"
#
#   # Limits for each instance: in all, from each address, and from each identity. The default is "never".
#   # max_connections              = 500
#   # max_connections_per_client   = 50
#   # max_connections_per_identity = 100
# }
