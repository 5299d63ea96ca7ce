package testproc

import (
	"os"
	"testing"
)

// Cannot skips the test, because of something that this machine lacks or does not permit. In CI it fails the test.
func Cannot(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s here, so this is not tested: %v", what, err)
}
