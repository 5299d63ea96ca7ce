package testproc

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

func TestFreePortGivesNoPortTwice(t *testing.T) {
	var given []int
	for range 100 {
		port, err := FreePort(func(port int) bool { return port%2 == 1 })
		if err != nil {
			t.Fatal(err)
		}
		if port%2 == 0 || port < 2000 || port >= 32000 || port/2000 == 4 || slices.Contains(given, port) {
			t.Fatalf("got port %d after %v", port, given)
		}
		given = append(given, port)
	}
	if port, err := FreePort(func(int) bool { return false }); err == nil {
		t.Errorf("got port %d, want an error", port)
	}
}

func TestEachProcessGetsItsOwnBlock(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux keeps the blocks apart")
	}
	name := fmt.Sprintf("lictor-test-of-ports-%d", rand.Int64())
	var taken []int
	for range blocks - 1 {
		n := takeBlock(name)
		if n == skipped || n < 0 || n >= blocks || slices.Contains(taken, n) {
			t.Fatalf("got block %d after %v", n, taken)
		}
		taken = append(taken, n)
	}
	if n := takeBlock(name); !slices.Contains(taken, n) {
		t.Errorf("got block %d, want one of those that are in use", n)
	}
}
