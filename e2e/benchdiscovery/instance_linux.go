package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"time"
)

// An instance sends its name to each client and closes the connection.
type instance struct {
	name string
	port int
	l    net.Listener
}

func newInstance(name string) (*instance, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	i := &instance{name: name, port: l.Addr().(*net.TCPAddr).Port, l: l}
	go i.serve()
	return i, nil
}

func newInstances(n int) ([]*instance, error) {
	var all []*instance
	for k := range n {
		i, err := newInstance(fmt.Sprint("i", k))
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

// serve accepts clients until the listener is closed.
func (i *instance) serve() {
	for {
		conn, err := i.l.Accept()
		if err != nil {
			return
		}
		_, _ = fmt.Fprintln(conn, i.name) // the client notices an error
		_ = conn.Close()
	}
}

func (i *instance) close() { _ = i.l.Close() }

// ask returns the name of the instance that answers at addr.
func ask(addr string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}
