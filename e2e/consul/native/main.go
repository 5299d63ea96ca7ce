// Command native is a service that speaks the mesh's TLS itself, with Consul's Go SDK. It greets each client with its
// name, and then echoes. It prints its address when it serves, and does not register itself.
//
//	CONSUL_HTTP_ADDR=127.0.0.1:8500 native SERVICE NAME
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/consul/connect"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: native SERVICE NAME")
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "native:", serve(os.Args[1], os.Args[2]))
	os.Exit(1)
}

// serve serves until an error.
func serve(service, name string) error {
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return err
	}
	s, err := connect.NewService(service, client)
	if err != nil {
		return err
	}
	<-s.ReadyWait()
	l, err := tls.Listen("tcp", "127.0.0.1:0", s.ServerTLSConfig())
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go greet(c, name)
	}
}

// greet sends the name, and then what it receives until the client ends.
func greet(c net.Conn, name string) {
	defer c.Close()
	if _, err := io.WriteString(c, name+"\n"); err == nil {
		_, _ = io.Copy(c, c) // the client notices an error
	}
}
