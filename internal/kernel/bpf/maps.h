// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// The maps that the programs share with the Go side, which writes all but the counters and the sockets.

#ifndef LICTOR_MAPS_H
#define LICTOR_MAPS_H

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define EVENTS_SIZE (64 * 1024)
#define MAX_SERVICES 8192

// An address is an IPv6 address, or an IPv4 address as ::ffff:a.b.c.d, in network byte order.
struct address {
	__u32 words[4];
};

// A listener is the key of listeners: what a client connects to. The address :: stands for all local addresses of both
// families, as it does for listen(2), and ::ffff:0.0.0.0 for the local IPv4 addresses.
struct listener {
	struct address address;
	__be16 port;
	__u8 protocol; // IPPROTO_TCP or IPPROTO_UDP
	__u8 zero;
};

// A set is a part of slots: the endpoints of one service in the order in which they take turns.
struct set {
	__u32 first;
	__u32 count;
};

// A service has two sets. The lowest bit of generation says which of them is current. The Go side writes the other set,
// and then increments generation.
struct service {
	__u64 turn;
	__u64 timeout; // nanoseconds; TCP: until an unanswered connection is a failure; UDP: until a session is idle; 0: never
	__u32 generation;
	__u32 zero;
	struct set sets[2];
};

struct counters {
	__u64 picks;
	__u64 open; // connections that are being established or are established
	__u64 connections;
	__u64 refused;
	__u64 unreachable;
	__u64 timed_out;
	__u64 abandoned;
	__u64 sent;
	__u64 received;
};

// An endpoint is an element of endpoints. When an index gets another endpoint, its generation changes, so sockets of the
// earlier endpoint do not count for the new one.
struct endpoint {
	struct address address;
	__be16 port;
	__u16 zero;
	__u32 generation;
	__u32 failing; // not 0: no connection has been established since the last failure
	__u32 cut;     // not 0: the sockets that were sent here are to be destroyed
	__u32 left;    // not 0: it has left its service
	__u32 zero2;
	struct counters counters;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct listener);
	__type(value, __u32); // an index of services
} listeners SEC(".maps");

// Addresses of this host besides loopback addresses.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u32);
} local_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SERVICES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct service);
} services SEC(".maps");

// Indexes of endpoints, see struct set.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64); // elements of arrays have a multiple of 8 bytes
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

enum progress {
	CHOSEN = 1, // connect(2) goes on to the endpoint
	CONNECTING,
	CONNECTED,
	ENDED,
};
const enum progress *progress_type __attribute__((unused)); // bpf2go declares only types that a variable has

// A process is the one that has connected a socket, or sent the first datagram of a session. It may pass the socket on.
struct process {
	__u32 pid;
	__u32 zero;
	char name[16]; // of its thread
};

// A socket is what a client's socket stores: where its user wanted to connect, and where it was sent.
struct socket {
	struct address asked;
	struct address chosen;
	__be16 asked_port;
	__be16 chosen_port;
	__u32 endpoint;
	__u32 generation; // of the endpoint
	__u32 progress;
	__u64 timeout;	// see struct service
	__u64 started;	// time of the connect(2), and then of the first SYN
	__u64 received; // bytes received before the peer had acknowledged our FIN
	bool fin_received;
	bool gave_up;  // the kernel sends no further SYN
	bool reported; // counted as timed out
	__u8 zero[5];  // without CAP_PERFMON, a program must not read padding
	struct process user;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket);
} sockets SEC(".maps");

// A session pairs a UDP socket that is not connected with an endpoint of a service.
struct session_key {
	__u64 cookie; // of the socket
	__u32 service;
	__u32 zero;
};

struct session {
	__u32 endpoint;
	__u32 generation;
	__u64 used;  // time of the last datagram
	__u64 began; // time of the first one
	struct process user;
	struct address asked; // the address of the listener to which the last datagram was sent, and its port
	__be16 port;
	__u16 zero[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct session_key);
	__type(value, struct session);
} sessions SEC(".maps");

// A reply says where a UDP socket wanted to send what went to an endpoint.
struct reply_key {
	__u64 cookie;
	struct address from;
	__be16 port;
	__u16 zero[3];
};

struct reply {
	struct address asked;
	__be16 port;
	__u16 zero;
	__u32 service;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct reply_key);
	__type(value, struct reply);
} replies SEC(".maps");

enum kind {
	RECOVERED = 1, // the first connection after a failure
	REFUSED,
	UNREACHABLE,
	TIMED_OUT,
};

struct event {
	__u32 endpoint;
	__u32 generation;
	__u32 kind;
	__u32 zero;
};
const struct event *event_type __attribute__((unused)); // see progress_type

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENTS_SIZE);
} events SEC(".maps");

// One bit for each port that some listener has, indexed by the port in network byte order: the only thing that most
// connections and datagrams of this host are compared with.
__u64 tcp_ports[1024];
__u64 udp_ports[1024];

// The same for listeners of either protocol at one address, and for those at an unspecified address. They save lookups
// for connections to the port of a listener at an address where it is not.
__u64 exact_ports[1024];
__u64 wildcard_ports[1024];

__u64 netns_cookie; // only sockets of this network namespace are considered
__u32 own_tgid;	    // sockets of this process are not
__u64 probe_cookie; // except this one: the probe's connection sets own_tgid

// Whether the programs may read the kernel's struct sock, and the names of processes, for which they need CAP_PERFMON.
const volatile bool reads_sock;

#endif
