// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// The program that lists what UDP sockets store, which sock_diag(7) shows only of TCP sockets. It is called once for
// every UDP socket of the network namespace, when the process reads an iterator. It needs CAP_PERFMON.

#include "maps.h"

char _license[] SEC("license") = "Dual MIT/GPL";

struct udp_sock;
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct udp_sock *udp_sk;
} __attribute__((preserve_access_index));

// A listed is what list_udp writes for each connected socket that was sent to an endpoint. Go has it, too.
struct listed {
	__u64 cookie;
	struct socket socket;
};

SEC("iter/udp")
int list_udp(struct bpf_iter__udp *ctx)
{
	struct udp_sock *sk = ctx->udp_sk;

	if (!sk)
		return 0;
	struct socket *s = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (!s || s->progress != CHOSEN)
		return 0;
	struct listed one = {.cookie = bpf_get_socket_cookie(sk), .socket = *s};
	bpf_seq_write(ctx->meta->seq, &one, sizeof(one));
	return 0;
}
