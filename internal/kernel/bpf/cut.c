// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// The programs that destroy the sockets that were sent to an endpoint. Each is called once for every socket of the
// network namespace, when the process reads an iterator. They need CAP_PERFMON and Linux 6.5.

#include "maps.h"

char _license[] SEC("license") = "Dual MIT/GPL";

struct sock_common {
	unsigned char skc_state;
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

static __always_inline void cut(struct sock_common *sk)
{
	// The object describes struct sock_common, as bpf_sock_destroy needs it, only if a field is used.
	if (sk->skc_state == BPF_TCP_LISTEN)
		return;
	struct socket *s = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (!s || s->progress == ENDED)
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
