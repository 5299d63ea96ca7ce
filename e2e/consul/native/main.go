// Command native speaks the mesh's TLS itself, with Consul's Go SDK. As a service it greets each client with its name,
// and then echoes. It prints its address when it serves, and does not register itself.
//
//	CONSUL_HTTP_ADDR=127.0.0.1:8500 native SERVICE NAME
//
// As a client it connects to another service, and prints the first line that comes back.
//
//	CONSUL_HTTP_ADDR=127.0.0.1:8500 native dial SERVICE OTHER
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/consul/connect"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3:
		err = serve(os.Args[1], os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "dial":
		err = dial(os.Args[2], os.Args[3])
	default:
		fmt.Fprintln(os.Stderr, "usage: native SERVICE NAME\n       native dial SERVICE OTHER")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "native:", err)
		os.Exit(1)
	}
}

// dial connects as a service to another one, and prints the first line that comes back.
func dial(service, other string) error {
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return err
	}
	s, err := connect.NewService(service, client)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	<-s.ReadyWait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := s.Dial(ctx, &connect.ConsulResolver{Client: client, Name: other})
	if err != nil {
		return err
	}
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	fmt.Print(line)
	return err
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
