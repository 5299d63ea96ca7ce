package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// serve is the main function of an instance's process. It prints its listen address and serves until it is killed.
func serve(protocol, name, address string) error {
	switch protocol {
	case "http":
		return serveHTTP(name, address)
	case "udp":
		return serveUDP(name, address)
	}
	return fmt.Errorf("no such protocol: %s", protocol)
}

// serveHTTP answers every request with the instance's name.
func serveHTTP(name, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintln(w, name) // ignore clients that are gone
		}),
	}
	return server.Serve(l)
}

// serveUDP answers every datagram with the instance's name and the datagram.
func serveUDP(name, address string) error {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	fmt.Println(conn.LocalAddr())
	buf := make([]byte, 1<<16)
	for {
		n, client, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			continue // a client that is gone has refused its answer; go on with the next
		}
		_, _ = conn.WriteTo(fmt.Appendf(nil, "%s: %s", name, buf[:n]), client)
	}
}
