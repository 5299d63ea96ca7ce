# A complete configuration of Lictor. Every argument is here; most can be left out, and what is commented out either needs a file that
# you may not have, or excludes something else that is shown. The whole of a small configuration is one line:
#
#   service "web" { listen = "127.0.0.1:9000" }
#
# Try it:  lictor validate example.hcl
#          lictor run -config example.hcl
#
# Durations are text with a unit: "500ms", "10s", "1h30m". "0s" is no time at all, and "never" is the word for off,
# endless and unlimited: the time never runs out, or the count is never reached. Paths are relative to the folder that
# lictor runs in. A configuration may be spread over several files: -config takes a directory too, and may be repeated.

# How much to log: trace, debug, info, warn, error or off.
log_level = "info"

# One JSON object per line instead of text.
log_json = false

# How long connections in flight may go on after SIGINT or SIGTERM, before they are cut. "0s" cuts them at once.
shutdown_grace = "10s"

# How long connections may go on in a lictor that another one has taken the place of (lictor upgrade), before they are
# cut. "never": they are not cut, and that process ends with the last of them.
upgrade_grace = "never"

# How bytes are moved: "auto" is the best way that this system has, event loops on Linux; "portable" works everywhere, for comparison.
engine = "auto"

# A folder in which the last good endpoints are kept over a restart, so that lictor serves them at once while Consul has not answered
# yet, or is away. It is made if it is not there. Left out: nothing is kept, and a restart while Consul is away starts without endpoints.
# state_dir = "/var/lib/lictor"

# Where Lictor shows what it does: a page for browsers, metrics for Prometheus (/metrics), and the API that "lictor status" and its like ask
# (docs/api.md). The block can be left out, and so can each argument.
admin {
  # "off", an address as of a service, or unix:///path/to/socket, which only its owner may open. Left out: admin.sock in the runtime directory,
  # which is that of systemd, /run/lictor, or lictor in $XDG_RUNTIME_DIR, whichever can be used first. An address that other hosts reach needs a
  # token.
  listen = "127.0.0.1:8510"

  # Whoever asks must know the token in this file: as a bearer token, or in a browser as the password with any name.
  # token_file = "/etc/lictor/admin-token"

  # Names by which browsers may ask, beside this host's own, localhost and IP addresses.
  hosts = ["lictor.example.com"]
}

# A line for each TCP connection and UDP session when it has ended: client, endpoint, times, bytes, how it ended and who ended it
# (docs/operations.md). Left out: none. Connections never wait for it; lines that cannot be written as fast as they come are dropped and counted.
# access_log {
#   # It is opened anew when somebody has moved it away, and at SIGHUP.
#   path = "/var/log/lictor/access.log"
#
#   # "json" or "text".
#   format = "json"
#
#   # One connection or session in so many. The line of one that was not served is always written.
#   sample = 1
# }

# How to reach Consul. The block can be left out. What is absent here is taken from the environment variables that Consul's own tools
# use: CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_AUTH, CONSUL_HTTP_SSL, CONSUL_HTTP_SSL_VERIFY, CONSUL_CACERT,
# CONSUL_CAPATH, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME, CONSUL_NAMESPACE and CONSUL_PARTITION.
consul {
  # host:port, http://host:port, https://host:port or unix:///path/to/socket.
  address = "127.0.0.1:8500"

  # The ACL token: in a file, which is the better way, or as text, but not both. It needs service:read and node:read.
  # token_file = "/etc/lictor/token"
  # token      = "..."

  # The datacenter of all services that do not name their own. Left out: that of the agent.
  # datacenter = "dc1"

  # How many queries may be under way at once where each takes a connection of its own, which is with every address but https://. The agent
  # allows a host 200 connections (limits.http_max_conns_per_client), for all programs together. If there are more different queries than
  # this, they take turns, and changes are seen up to 5 seconds later. Services that watch the same thing share a query.
  max_watches = 150

  # Register this Lictor as the service "lictor", with a check that passes once all services have had an answer. While it shuts down it is
  # in maintenance, and at the end it is gone. The token needs service:write for "lictor".
  register = false

  # For an address with https:// only.
  # tls {
  #   ca_file              = "/etc/lictor/ca.pem"   # who signs Consul's certificate; or a directory of such:
  #   ca_path              = "/etc/lictor/ca.d"
  #   cert_file            = "/etc/lictor/cert.pem" # what to show to Consul; both or none
  #   key_file             = "/etc/lictor/key.pem"
  #   server_name          = "server.dc1.consul"    # the name in Consul's certificate, where it is not that of the address
  #   insecure_skip_verify = false                  # true accepts any certificate: for trying things out only
  # }
}

# A service: clients dial listen, and each connection goes to the next healthy instance. The label is its name in logs, metrics and status;
# unless the consul block says otherwise, it is the name of the service in Consul too.
service "web" {
  # One address or a list of them. A bare port, 9000 or ":9000", is on 127.0.0.1. For all addresses of the host write "0.0.0.0:9000" (IPv4) or
  # "[::]:9000" (IPv6 and IPv4). Port 0 lets the kernel choose; the log says what it chose.
  listen = ["127.0.0.1:9000", "[::1]:9000"]

  # tcp or udp.
  protocol = "tcp"

  # How the next instance is chosen:
  #   round_robin        each in turn, as often as its weight says
  #   least_connections  the one with the fewest open connections for its weight
  #   random_two         of two drawn by weight, the one with fewer: nearly as even, and without an order that many Lictors would share
  #   source_hash        by the client's IP address, always the same one; when an instance leaves, only its clients move
  balance = "round_robin"

  # With any of these, a client, by its IP address, stays with its instance until it has not come for so long. "0s": it
  # does not stay. The 65,536 clients that came last are remembered.
  sticky = "0s"

  # An instance that fails so often in a row is left out, whatever Consul says: it does not answer in time, or resets
  # connections before it has sent anything. One that refuses is left out at once. After 1s, which doubles up to 1m, one
  # connection tries it again. That is shared with all services that have an instance at the same address. "never": this
  # service leaves no instance out.
  max_fails = 2

  # When fewer instances than this would be left, they are all used: it is more likely then that the fault is on this
  # side. "0%": ejected instances are left out however many they are.
  min_available = "50%"

  # How long a new instance, or one that was left out, takes to come up to its full share. "0s": it has that at once.
  slow_start = "0s"

  # How many connections there may be, to all instances together and to each. Left out, or "never": no limit.
  # max_connections              = 10000
  # max_connections_per_endpoint = 500

  # How many connections, or UDP sessions, each client may have, by its IP address (of IPv6, its /64). One more is
  # reset, and a datagram that would begin one more session is dropped. Left out, or "never": no limit.
  # max_connections_per_client = 100

  # When there is no room, so many clients wait in a queue, each for so long at most. Clients take turns, and one alone
  # may have four fifths of the places. "0s": none waits. TCP only.
  max_queue     = 1024
  queue_timeout = "5s"

  # When the last instance has gone, new clients wait in that queue until another one comes, but no longer than so long
  # after that moment. "0s": they are reset at once. TCP only.
  empty_wait = "3s"

  # How long an instance has to accept a connection before the next one is tried. TCP only.
  connect_timeout = "1s"

  # A connection on which nothing moves for so long is closed. "never": it is not.
  idle_timeout = "1h"

  # When one side has finished sending and the other says nothing more for so long, the connection is closed. "never":
  # it is not. TCP only.
  half_close_timeout = "5m"

  # What becomes of the connections of an instance that leaves. "finish": they go on until they end. "30s": they may go on for so long, and are
  # reset then. "cut": they are reset at once, on both sides, which is what a database needs whose primary moves. An instance that is back in time
  # keeps its connections. Instances that drop_hold holds have not left, nor have those of a source that another one has taken over from. TCP
  # only: UDP sessions move to another instance at their next datagram. One for all reasons, on_leave = "finish", or for each apart:
  # on_leave = "finish"
  on_leave {
    deregistered = "finish" # Consul's servers do not know it any more, at that address
    critical     = "finish" # a check of it or its node is critical, or it is in maintenance, or the check below over HTTP fails
    unmatched    = "finish" # it is there, but has not the tags any more, nor passes the filter, or its status does not count (warning)
  }

  # How old a connection may become, give or take a tenth, so that old ones spread over the instances that there are
  # now. It is then closed in a moment of quiet: nothing has moved for a second, the instance had the last word, and all
  # has arrived. When there is none, it is reset after max_age_grace. Connections that are open when a reload changes
  # max_age count from then. Left out, or "never": any age. TCP only.
  # max_age       = "1h"
  # max_age_grace = "30s"

  # Which instances in Consul's catalog. The block can be left out, and so can each argument.
  consul {
    service = "web"

    # Instances must have all of these tags.
    tags = ["v2"]

    # An expression in Consul's filter language.
    filter = "Service.Meta.version == `2`"

    # Instances count whose checks, their own and their node's, are all in one of these statuses: "passing", which is always among them, and
    # "warning". Each gets the share of connections that Consul's Weights say for its status. "critical" counts too in a service whose check
    # has http, see below.
    statuses = ["passing"]

    # When nothing is left, or more than max_drop percent of three or more instances vanish at once, Consul's servers are asked again, for a
    # consistent answer. If they say the same, what vanished stays in use for a while, unless it fails to answer: what was deregistered
    # for drop_hold; what is critical, or has gone together with its node, for hold_max, as long as it can be reached from here. New instances are taken
    # in at once; as soon as there are as many as are held, no hold goes on. Instances in maintenance, and those that do not match tags or filter any
    # more, leave at once. max_drop = 0 holds each loss, 100 only the loss of all; "0s" holds nothing. hold_max = "1m" is for both reasons alike.
    max_drop  = 50
    drop_hold = "10s"
    # hold_max = "1m"
    hold_max {
      critical  = "1m" # a check of it or its node is critical, as after a restart of an agent whose checks have long intervals
      forgotten = "1m" # Consul knows neither it nor its node any more, or the node is back without it
    }

    # Instances of this datacenter; or of the first of these that has enough of them: see failover below.
    # datacenter  = "dc2"
    # datacenters = ["dc1", "dc2"]

    # Instances that a peered cluster exports. To Consul an unknown peer is one without instances; Lictor takes it for an error, as it does a
    # peering that has ended, if the token has peering:read.
    # peer = "cluster-b"

    # What a prepared query of this name or ID comes to; it has its own idea of service, tags and filter. It is executed every 5 seconds.
    # prepared_query = "nearest-web"

    # Have Consul sort the instances by distance from this node; _agent is the local one. round_robin takes no notice of the order. It costs:
    # such a query is answered by Consul's servers instead of the agent's own view of the catalog, each time that the service changes.
    # near = "_agent"
  }
}

# A service with several sources of endpoints, in order of preference. The first that has enough is used.
service "orders" {
  listen = 9002

  # A source with fewer healthy instances than this is left, at once, for the next one that has as many. That a source cannot be asked is no
  # reason to leave it: its last good endpoints stay. The default, 1, leaves a source when it has none.
  failover_below = 1

  # A source is also left when all its instances are ejected, and a later one has one that is not. "consul": only when
  # Consul says that it has too few.
  failover_on = "health"

  # How long an earlier source must have enough before it is used again.
  failback_hold = "30s"

  consul { datacenters = ["dc1", "dc2"] }
  consul { peer = "cluster-b" }
  static { endpoints = ["10.9.0.5:80"] }
}

# A service over UDP. A client's datagrams stay with one instance as long as its session lives.
service "dns" {
  listen   = 9053
  protocol = "udp"

  # A session without datagrams for so long ends. It cannot be "0s" or "never", for nothing else ends a session.
  idle_timeout = "1m"

  # How many sessions there can be at once; when there are more, the one that was idle longest ends. UDP only.
  max_sessions = 65536

  # How many datagrams an instance answers each of a client's datagrams with. A session ends as soon as they have come:
  # short exchanges then cost a socket for as long as they take only. Left out, or "never": any number, and sessions end
  # when they are idle. 0: none is expected, and those that come are thrown away; clients then share a socket for each
  # instance. UDP only.
  responses = 1

  # After how many datagrams of a client its next ones go to another instance. 1 spreads every datagram, which is what syslog wants, together with
  # responses = 0. Left out, or "never": a client stays with its instance as long as its session lives. UDP only.
  # requests = 1

  # Check instances from here, for those that Consul does not check. Over TCP by connecting; over UDP an instance must answer. What fails is
  # left out as above.
  check {
    interval = "10s"
    timeout  = "2s"
    send     = "ping" # UDP only, and needed there: the datagram
    expect   = "pong" # and what the answer begins with

    # Or ask instances over HTTP, and let their answers decide which of them get clients: those that answer with a status of 2xx. One that did and
    # then does not answer at all gets clients for max_silence.
    # http        = "/primary"
    # port        = 8008 # left out: the instance's own port
    # max_silence = "30s"

    # Over HTTPS. The block may be empty. Its arguments are those of tls in the block consul above.
    # tls {
    #   ca_file     = "/etc/lictor/ca.pem"
    #   server_name = "postgres.example.com" # the name in the certificates, where it is not the address of the instance
    # }
  }
}

# A service that does not need Consul.
service "legacy" {
  listen = "127.0.0.1:9001"

  static {
    # host:port; a host name is looked up for each connection.
    endpoints = ["10.0.0.5:80", "[2001:db8::7]:80", "db.example.com:5432"]
  }
}
