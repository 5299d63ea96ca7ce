//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "patroni: the members need Linux, where all of 127.0.0.0/8 is this host")
	os.Exit(1)
}
