// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// The programs for UDP sockets that are not connected. They are attached only while there is a UDP service, because they
// run for every datagram that is sent with an address, or received by a caller that asks for the sender.

#ifndef LICTOR_UDP_H
#define LICTOR_UDP_H

#include "choose.h"

// resume copies the endpoint of the session to s, unless the endpoint has left or the session has been idle.
static __always_inline bool resume(struct session *session, __u64 timeout, __u64 now, struct socket *s)
{
	if (timeout && now - session->used >= timeout)
		return false;
	s->endpoint = session->endpoint;
	s->generation = session->generation;
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &s->endpoint);
	if (!endpoint || endpoint->left)
		return false;
	s->chosen = endpoint->address;
	s->chosen_port = endpoint->port;
	__u32 nothing = 0;
	barrier_var(nothing); // see choose_once
	if (__sync_fetch_and_add(&endpoint->generation, nothing) != s->generation)
		return false;
	session->used = now;
	return true;
}

// expect_replies makes replies of the endpoint come from the listener.
static __always_inline bool expect_replies(struct session_key *key, struct socket *s)
{
	struct reply_key from = {.cookie = key->cookie, .from = s->chosen, .port = s->chosen_port};
	struct reply reply = {.asked = s->asked, .port = s->asked_port, .service = key->service};

	return bpf_map_update_elem(&replies, &from, &reply, BPF_ANY) == 0;
}

// begin_session remembers the chosen endpoint for further datagrams, and the listener for replies.
static __always_inline bool begin_session(struct bpf_sock_addr *ctx, struct session_key *key, __u64 now, struct socket *s)
{
	struct session session = {.endpoint = s->endpoint, .generation = s->generation, .used = now, .began = now,
				  .asked = s->asked, .port = s->asked_port};

	note_user(&session.user);
	// What is stored with the socket says that it may get replies.
	if (!bpf_sk_storage_get(&sockets, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE) || !expect_replies(key, s) ||
	    bpf_map_update_elem(&sessions, key, &session, BPF_ANY))
		return false;
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &s->endpoint);
	if (endpoint) {
		__sync_fetch_and_add(&endpoint->counters.picks, 1);
		__sync_fetch_and_add(&endpoint->counters.connections, 1);
	}
	return true;
}

// send finds the endpoint for a datagram. It returns false if the datagram is to be left alone.
static __always_inline bool send(struct bpf_sock_addr *ctx, const struct address *from, struct socket *s)
{
	if (ctx->protocol != IPPROTO_UDP || ctx->sk->bound_dev_if)
		return false;
	__u32 *index = find_service(&s->asked, s->asked_port, IPPROTO_UDP);
	if (!index || !is_client(ctx))
		return false;
	struct service *service = bpf_map_lookup_elem(&services, index);
	if (!service)
		return false;
	struct session_key key = {.cookie = bpf_get_socket_cookie(ctx), .service = *index};
	struct session *session = bpf_map_lookup_elem(&sessions, &key);
	__u64 now = bpf_ktime_get_ns();
	if (session && resume(session, service->timeout, now, s)) {
		if (session->port != s->asked_port || !same(&session->asked, &s->asked)) {
			session->asked = s->asked;
			session->port = s->asked_port;
			expect_replies(&key, s);
		}
		return leads_to(from, &s->chosen);
	}
	return choose(service, s) && is_ipv4(&s->asked) == is_ipv4(&s->chosen) && leads_to(from, &s->chosen) &&
	       begin_session(ctx, &key, now, s);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	if (!has_bit(udp_ports, (__u16)ctx->user_port))
		return LEAVE_ALONE;
	struct address from = of_ipv4(ctx->msg_src_ip4);
	struct socket s = {.asked = asked_for(of_ipv4(ctx->user_ip4)), .asked_port = ctx->user_port};
	if (send(ctx, &from, &s)) {
		ctx->user_ip4 = s.chosen.words[3];
		ctx->user_port = s.chosen_port;
	}
	return 1;
}

// sendmsg6 sees no IPv4 addresses: the kernel calls sendmsg4 for ::ffff:a.b.c.d.
SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	if (!has_bit(udp_ports, (__u16)ctx->user_port))
		return LEAVE_ALONE;
	struct address from;
	COPY(from.words, ctx->msg_src_ip6);
	struct socket s = {.asked = asked_for(address6(ctx)), .asked_port = ctx->user_port};
	if (send(ctx, &from, &s)) {
		set_address6(ctx, &s.chosen);
		ctx->user_port = s.chosen_port;
	}
	return 1;
}

// sender replaces the sender of a datagram by the listener to which the socket has sent. It returns false if it is
// neither.
static __always_inline bool sender(struct bpf_sock_addr *ctx, struct address *from, __be16 *port)
{
	struct socket *s = bpf_sk_storage_get(&sockets, ctx->sk, NULL, 0);

	if (!s)
		return false;
	if (s->progress == CHOSEN && s->chosen_port == *port && same(&s->chosen, from)) { // a connected socket
		*from = s->asked;
		*port = s->asked_port;
		return true;
	}
	struct reply_key key = {.cookie = bpf_get_socket_cookie(ctx), .from = *from, .port = *port};
	struct reply *reply = bpf_map_lookup_elem(&replies, &key);
	if (!reply)
		return false;
	*from = reply->asked;
	*port = reply->port;
	struct session_key session = {.cookie = key.cookie, .service = reply->service};
	struct session *used = bpf_map_lookup_elem(&sessions, &session);
	if (used)
		used->used = bpf_ktime_get_ns();
	return true;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct address from = of_ipv4(ctx->user_ip4);
	__be16 port = ctx->user_port;

	if (sender(ctx, &from, &port)) {
		ctx->user_ip4 = from.words[3];
		ctx->user_port = port;
	}
	return 1;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct address from = address6(ctx);
	__be16 port = ctx->user_port;

	if (sender(ctx, &from, &port)) {
		set_address6(ctx, &from);
		ctx->user_port = port;
	}
	return 1;
}

#endif
