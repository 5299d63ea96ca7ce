//go:build unix

package e2e

import (
	"os"
	"testing"
)

// engineVar is the variable of the environment that names the engine which Lictor has to use in these tests.
// `make test` runs them twice: with the engine that Lictor chooses, and with the portable one.
const engineVar = "LICTOR_E2E_ENGINE"

// anyEngine skips a test in the run with another engine. A test calls it if it is about what all engines share:
// discovery, configuration, the choice of an endpoint, the admin API, the command line. A test about connections and
// datagrams must not call it: it runs with each engine.
func anyEngine(t testing.TB) {
	t.Helper()
	if engine := os.Getenv(engineVar); engine != "" {
		t.Skipf("this test is not about the engine, so it does not run again with engine = %q", engine)
	}
}
