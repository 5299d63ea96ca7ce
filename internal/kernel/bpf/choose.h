// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// What the programs for TCP and UDP share: which service an address belongs to, and which endpoint is next.

#ifndef LICTOR_CHOOSE_H
#define LICTOR_CHOOSE_H

#include "maps.h"

#include <bpf/bpf_core_read.h>

#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17

#define LEAVE_ALONE 1

// COPY copies four words one by one. The verifier accepts the access to a context only in this way.
#define COPY(to, from)                                                 \
	do {                                                           \
		for (int i = 0; i < 4; i++)                            \
			(to)[i] = *(const volatile __u32 *)&(from)[i]; \
	} while (0)

// The parts of kernel structures that are read. CO-RE finds them in the running kernel.
struct sock_common {
	unsigned char skc_ipv6only : 1;
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
} __attribute__((preserve_access_index));

static __always_inline struct address of_ipv4(__u32 ip)
{
	return (struct address){.words = {0, 0, bpf_htonl(0xffff), ip}};
}

static __always_inline bool is_ipv4(const struct address *a)
{
	return a->words[0] == 0 && a->words[1] == 0 && a->words[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_loopback(const struct address *a)
{
	if (is_ipv4(a))
		return (a->words[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return a->words[0] == 0 && a->words[1] == 0 && a->words[2] == 0 && a->words[3] == bpf_htonl(1);
}

static __always_inline bool is_unspecified(const struct address *a)
{
	return a->words[3] == 0 && a->words[0] == 0 && a->words[1] == 0 &&
	       (a->words[2] == 0 || a->words[2] == bpf_htonl(0xffff));
}

static __always_inline bool same(const struct address *a, const struct address *b)
{
	return a->words[3] == b->words[3] && a->words[2] == b->words[2] && a->words[1] == b->words[1] &&
	       a->words[0] == b->words[0];
}

static __always_inline bool has_bit(const __u64 *ports, __u32 port)
{
	return ports[(port >> 6) & 1023] & (1ULL << (port & 63));
}

// find_service returns the index of the service that listens at the address, or NULL. If it finds none, that costs one
// lookup, unless there are listeners of both kinds at the port.
static __always_inline __u32 *find_service(const struct address *asked, __be16 port, __u8 protocol)
{
	struct listener key = {.address = *asked, .port = port, .protocol = protocol};
	__u32 *index = NULL;

	if (has_bit(exact_ports, port))
		index = bpf_map_lookup_elem(&listeners, &key);
	if (index || !has_bit(wildcard_ports, port))
		return index;
	if (!is_loopback(asked) && !bpf_map_lookup_elem(&local_addresses, asked))
		return NULL;
	if (is_ipv4(asked)) {
		key.address.words[3] = 0;
		index = bpf_map_lookup_elem(&listeners, &key);
	}
	if (!index) {
		key.address = (struct address){};
		index = bpf_map_lookup_elem(&listeners, &key);
	}
	return index;
}

// choose copies the endpoint whose turn it is to s. A set that is replaced meanwhile may be used for something else
// already, and then the result does not count.
static __always_inline bool choose_once(struct service *service, __u64 turn, struct socket *s)
{
	__u32 generation = *(volatile __u32 *)&service->generation;
	struct set *set = &service->sets[generation & 1];
	__u32 first = *(volatile __u32 *)&set->first, count = *(volatile __u32 *)&set->count;

	if (!count)
		return false;
	__u32 at = first + turn % count;
	__u64 *slot = bpf_map_lookup_elem(&slots, &at);
	if (!slot)
		return false;
	s->endpoint = *slot;
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &s->endpoint);
	if (!endpoint)
		return false;
	s->chosen = endpoint->address;
	s->chosen_port = endpoint->port;
	s->generation = endpoint->generation;
	s->timeout = service->timeout;
	// An atomic operation that returns a value comes after all loads above, also on arm64. The compiler must not know
	// that it adds nothing.
	__u32 nothing = 0;
	barrier_var(nothing);
	return __sync_fetch_and_add(&service->generation, nothing) == generation;
}

static __always_inline bool choose(struct service *service, struct socket *s)
{
	__u64 turn = __sync_fetch_and_add(&service->turn, 1);

	for (int tries = 0; tries < 3; tries++)
		if (choose_once(service, turn, s))
			return true;
	return false;
}

// only_ipv6 reports whether the IPv6 socket may not connect to an IPv4 address, as far as is known.
static __always_inline bool only_ipv6(struct bpf_sock *sk, __u32 protocol)
{
	struct sock *full;

	if (!reads_sock)
		return true;
	if (protocol == IPPROTO_UDP)
		full = (struct sock *)bpf_skc_to_udp6_sock(sk);
	else
		full = (struct sock *)bpf_skc_to_tcp6_sock(sk);
	return !full || BPF_CORE_READ_BITFIELD(&full->__sk_common, skc_ipv6only);
}

// leads_to reports whether packets from a source address can go to the endpoint.
static __always_inline bool leads_to(const struct address *from, const struct address *to)
{
	if (is_unspecified(from))
		return true;
	return is_ipv4(from) == is_ipv4(to) && (!is_loopback(from) || is_loopback(to));
}

// is_client reports whether the socket is of a client in this network namespace. The first connection of the probe also
// says which process this is: in a PID namespace, the process itself cannot know that.
static __always_inline bool is_client(struct bpf_sock_addr *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	if (bpf_get_netns_cookie(ctx) != netns_cookie)
		return false;
	if (probe_cookie && bpf_get_socket_cookie(ctx) == probe_cookie) {
		own_tgid = tgid;
		return true;
	}
	return tgid != own_tgid;
}

// note_user notes the calling process. The kernel tells its name only with CAP_PERFMON.
static __always_inline void note_user(struct process *p)
{
	p->pid = bpf_get_current_pid_tgid() >> 32;
	if (reads_sock)
		bpf_get_current_comm(p->name, sizeof(p->name));
}

// asked_for returns the address in the form in which listeners have it: connecting to the unspecified address connects to
// a loopback address.
static __always_inline struct address asked_for(struct address a)
{
	if (is_unspecified(&a))
		a.words[3] = is_ipv4(&a) ? bpf_htonl(0x7f000001) : bpf_htonl(1);
	return a;
}

static __always_inline struct address address6(struct bpf_sock_addr *ctx)
{
	struct address a;

	COPY(a.words, ctx->user_ip6);
	return a;
}

static __always_inline void set_address6(struct bpf_sock_addr *ctx, const struct address *a)
{
	COPY(ctx->user_ip6, a->words);
}

#endif
