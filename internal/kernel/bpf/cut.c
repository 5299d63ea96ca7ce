// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// The programs that destroy the sockets that were sent to an endpoint. Each is called once for every socket of the
// network namespace, when the process reads an iterator. They need CAP_PERFMON and Linux 6.5.

#include "maps.h"

char _license[] SEC("license") = "Dual MIT/GPL";

#define AF_INET6 10

struct in6_addr {
	union {
		__be32 u6_addr32[4];
	} in6_u;
} __attribute__((preserve_access_index));

struct sock_common {
	unsigned short skc_family;
	unsigned char skc_state;
	__be16 skc_dport;
	__be32 skc_daddr;
	struct in6_addr skc_v6_daddr;
} __attribute__((preserve_access_index));

struct udp_sock {
	struct sock_common *unused;
} __attribute__((preserve_access_index));

struct bpf_iter__tcp {
	struct sock_common *sk_common;
} __attribute__((preserve_access_index));

struct bpf_iter__udp {
	struct udp_sock *udp_sk;
} __attribute__((preserve_access_index));

extern int bpf_sock_destroy(struct sock_common *sock) __ksym;

__u64 destroyed; // sockets, since the programs were loaded

// is_sent reports whether the socket is still connected to the endpoint to which it was sent. A socket that its client
// has connected again elsewhere still stores the endpoint.
static __always_inline bool is_sent(struct sock_common *sk, struct socket *s)
{
	const __u32 *to = s->chosen.words;

	if (s->progress == ENDED || sk->skc_dport != s->chosen_port)
		return false;
	if (sk->skc_family != AF_INET6)
		return sk->skc_daddr == to[3] && to[2] == bpf_htonl(0xffff) && !to[1] && !to[0];
	for (int i = 0; i < 4; i++)
		if (sk->skc_v6_daddr.in6_u.u6_addr32[i] != to[i])
			return false;
	return true;
}

static __always_inline void cut(struct sock_common *sk)
{
	if (sk->skc_state == BPF_TCP_LISTEN)
		return;
	struct socket *s = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (!s || !is_sent(sk, s))
		return;
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &s->endpoint);
	if (endpoint && endpoint->generation == s->generation && endpoint->cut && bpf_sock_destroy(sk) == 0)
		__sync_fetch_and_add(&destroyed, 1);
}

SEC("iter/tcp")
int cut_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;

	if (sk)
		cut(sk);
	return 0;
}

SEC("iter/udp")
int cut_udp(struct bpf_iter__udp *ctx)
{
	struct udp_sock *sk = ctx->udp_sk;

	if (sk)
		cut((struct sock_common *)sk);
	return 0;
}
