// Command consulpath prints the path of the Consul for the tests and the demo. If it is missing, the command builds it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	path, err := testconsul.Build(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "consul:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
