// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// The programs of the kernel path. They send the connections of this host's clients to the endpoints of services. When in
// doubt they leave a connection alone, and then the listener in user space serves it. They always return 1: with 0, the
// kernel would fail the system call of a client that may have nothing to do with Lictor.
//
// These files may be used under the MIT license too, because the kernel offers some of its functions only to programs
// whose license is compatible with the GPL, which the license of Lictor's other files is not.

#include "choose.h"
#include "udp.h"

char _license[] SEC("license") = "Dual MIT/GPL";

// can_reach reports whether the socket could connect to the endpoint, as far as its family, its source address and its
// device decide it.
static __always_inline bool can_reach(struct bpf_sock_addr *ctx, bool ipv6, bool asked_ipv4, const struct address *to)
{
	struct bpf_sock *sk = ctx->sk;
	struct address from;

	if (sk->bound_dev_if)
		return false;
	if (!ipv6) {
		if (!is_ipv4(to))
			return false;
		from = of_ipv4(sk->src_ip4);
	} else {
		if (is_ipv4(to) && !asked_ipv4 && only_ipv6(sk, ctx->protocol))
			return false;
		COPY(from.words, sk->src_ip6);
	}
	return leads_to(&from, to);
}

// redirect chooses an endpoint for a connection and stores it with the socket. It returns NULL if the connection is to
// be left alone.
static __always_inline struct socket *redirect(struct bpf_sock_addr *ctx, bool ipv6, struct address asked)
{
	bool tcp = ctx->protocol == IPPROTO_TCP && ctx->type == SOCK_STREAM;

	if (!tcp && (ctx->protocol != IPPROTO_UDP || ctx->type != SOCK_DGRAM))
		return NULL;
	asked = asked_for(asked);
	struct socket chosen = {.asked = asked, .asked_port = ctx->user_port, .progress = CHOSEN};
	__u32 *index = find_service(&asked, chosen.asked_port, tcp ? IPPROTO_TCP : IPPROTO_UDP);
	if (!index || !is_client(ctx))
		return NULL;
	struct service *service = bpf_map_lookup_elem(&services, index);
	if (!service || !choose(service, &chosen) || !can_reach(ctx, ipv6, is_ipv4(&asked), &chosen.chosen))
		return NULL;
	struct socket *stored = bpf_sk_storage_get(&sockets, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!stored)
		return NULL;
	*stored = chosen;
	stored->started = bpf_ktime_get_ns();
	note_user(&stored->user);
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &chosen.endpoint);
	if (endpoint) {
		__sync_fetch_and_add(&endpoint->counters.picks, 1);
		if (!tcp)
			__sync_fetch_and_add(&endpoint->counters.connections, 1);
	}
	return stored;
}

// has_listener reports whether any service listens at the port. It decides what all other connections of the host pay,
// so it comes first.
static __always_inline bool has_listener(struct bpf_sock_addr *ctx)
{
	__u32 port = (__u16)ctx->user_port;

	return has_bit(tcp_ports, port) || has_bit(udp_ports, port);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	if (!has_listener(ctx))
		return LEAVE_ALONE;
	struct socket *s = redirect(ctx, false, of_ipv4(ctx->user_ip4));
	if (s) {
		ctx->user_ip4 = s->chosen.words[3];
		ctx->user_port = s->chosen_port;
	}
	return 1;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	if (!has_listener(ctx))
		return LEAVE_ALONE;
	struct socket *s = redirect(ctx, true, address6(ctx));
	if (s) {
		set_address6(ctx, &s->chosen);
		ctx->user_port = s->chosen_port;
	}
	return 1;
}

// sent_to returns what the socket stores if its peer is the endpoint to which it was sent. A socket that has connected
// again by itself still stores the earlier connection.
static __always_inline struct socket *sent_to(struct bpf_sock_addr *ctx, const struct address *peer)
{
	struct socket *s = bpf_sk_storage_get(&sockets, ctx->sk, NULL, 0);

	if (!s || s->progress == ENDED || s->chosen_port != (__be16)ctx->user_port || !same(&s->chosen, peer))
		return NULL;
	return s;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct address peer = of_ipv4(ctx->user_ip4);
	struct socket *s = sent_to(ctx, &peer);

	if (s) {
		ctx->user_ip4 = s->asked.words[3];
		ctx->user_port = s->asked_port;
	}
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct address peer = address6(ctx);
	struct socket *s = sent_to(ctx, &peer);

	if (s) {
		set_address6(ctx, &s->asked);
		ctx->user_port = s->asked_port;
	}
	return 1;
}

static __always_inline void report(struct socket *s, enum kind kind)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e)
		return; // the counters have it
	*e = (struct event){.endpoint = s->endpoint, .generation = s->generation, .kind = kind};
	bpf_ringbuf_submit(e, 0);
}

static __always_inline void failed(struct endpoint *endpoint, struct socket *s, __u64 *counter, enum kind kind)
{
	__sync_fetch_and_add(counter, 1);
	endpoint->failing = 1;
	report(s, kind);
}

// begin is called when the SYN is about to be sent. From here on the kernel calls the program for this socket.
static __always_inline void begin(struct bpf_sock_ops *ctx, struct endpoint *endpoint, struct socket *s)
{
	struct address to;

	if (ctx->family == AF_INET6)
		COPY(to.words, ctx->remote_ip6);
	else
		to = of_ipv4(ctx->remote_ip4);
	if (s->progress != CHOSEN || !same(&s->chosen, &to) || bpf_htonl(ctx->remote_port) != bpf_ntohs(s->chosen_port))
		return;
	// Flags that programs of others have set must stay.
	if (bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG |
					       BPF_SOCK_OPS_RTO_CB_FLAG))
		return;
	s->progress = CONNECTING;
	s->started = bpf_ktime_get_ns();
	__sync_fetch_and_add(&endpoint->counters.open, 1);
}

// unanswered is called when the kernel sends the SYN again, or gives up. A client that gives up earlier than the
// service's timeout does so by its own choice, for example by TCP_USER_TIMEOUT.
static __always_inline void unanswered(struct bpf_sock_ops *ctx, struct endpoint *endpoint, struct socket *s)
{
	if (ctx->args[2])
		s->gave_up = true;
	if (s->progress != CONNECTING || s->reported || !s->timeout || bpf_ktime_get_ns() - s->started < s->timeout)
		return;
	s->reported = true;
	failed(endpoint, s, &endpoint->counters.timed_out, TIMED_OUT);
}

// not_established judges a connection attempt that is over. If the client has closed the socket, or disconnected it, the
// SYN is still queued. If the kernel has ended the attempt, it has emptied the queue before: because of a reset, of an
// ICMP message, or because of its own timeout. Kernels before 6.10 keep the queue when an ICMP message arrives.
static __always_inline void not_established(struct bpf_sock_ops *ctx, struct endpoint *endpoint, struct socket *s)
{
	if (s->reported)
		return;
	if (endpoint->cut)
		__sync_fetch_and_add(&endpoint->counters.abandoned, 1);
	else if (!ctx->packets_out && ctx->segs_in)
		failed(endpoint, s, &endpoint->counters.refused, REFUSED);
	else if (!ctx->packets_out && ctx->segs_out && !s->gave_up)
		failed(endpoint, s, &endpoint->counters.unreachable, UNREACHABLE);
	else
		__sync_fetch_and_add(&endpoint->counters.abandoned, 1);
}

// count_bytes adds the bytes of a connection that has ended. The kernel's figures include SYN and FIN.
static __always_inline void count_bytes(struct bpf_sock_ops *ctx, struct endpoint *endpoint, struct socket *s)
{
	__u32 old = ctx->args[0];
	__u64 sent = ctx->bytes_acked, received = ctx->bytes_received;

	if (sent)
		sent--;
	if (sent && (old == BPF_TCP_FIN_WAIT2 || ((old == BPF_TCP_FIN_WAIT1 || old == BPF_TCP_CLOSING ||
						     old == BPF_TCP_LAST_ACK) && ctx->snd_una == ctx->snd_nxt)))
		sent--;
	if (received && (s->fin_received || (old == BPF_TCP_FIN_WAIT2 && received > s->received)))
		received--;
	__sync_fetch_and_add(&endpoint->counters.sent, sent);
	__sync_fetch_and_add(&endpoint->counters.received, received);
}

static __always_inline void change(struct bpf_sock_ops *ctx, struct endpoint *endpoint, struct socket *s)
{
	switch (ctx->args[1]) {
	case BPF_TCP_ESTABLISHED:
		if (s->progress != CONNECTING)
			return;
		s->progress = CONNECTED;
		__sync_fetch_and_add(&endpoint->counters.connections, 1);
		if (endpoint->failing && __sync_lock_test_and_set(&endpoint->failing, 0))
			report(s, RECOVERED);
		return;
	case BPF_TCP_CLOSE_WAIT:
	case BPF_TCP_CLOSING:
		s->fin_received = true;
		return;
	case BPF_TCP_FIN_WAIT2:
		s->received = ctx->bytes_received;
		return;
	case BPF_TCP_CLOSE:
		if (s->progress == CONNECTING)
			not_established(ctx, endpoint, s);
		else if (s->progress == CONNECTED)
			count_bytes(ctx, endpoint, s);
		else
			return;
		s->progress = ENDED;
		__sync_fetch_and_add(&endpoint->counters.open, -1);
	}
}

// follow follows the connections that were sent to an endpoint. The kernel calls it several times for each TCP
// connection of the host, for most of them only for operations that end here at once.
SEC("sockops")
int follow(struct bpf_sock_ops *ctx)
{
	__u32 op = ctx->op;

	if (op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_STATE_CB && op != BPF_SOCK_OPS_RTO_CB)
		return 1;
	struct bpf_sock *sk = ctx->sk;
	if (!sk)
		return 1;
	struct socket *s = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (!s)
		return 1;
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &s->endpoint);
	if (!endpoint || endpoint->generation != s->generation)
		return 1;
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		begin(ctx, endpoint, s);
	else if (op == BPF_SOCK_OPS_RTO_CB)
		unanswered(ctx, endpoint, s);
	else
		change(ctx, endpoint, s);
	return 1;
}
