package proxy

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testseccomp"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// Under a seccomp filter that denies a call, both engines serve TCP and UDP. Each engine logs once what it does without
// the call.
func TestCallsDeniedBySeccomp(t *testing.T) {
	t.Parallel() // other processes do the work
	for _, tt := range []struct {
		name     string
		denied   []int
		auto     string // calls that the log names, in order
		portable string
	}{
		{"splice", []int{unix.SYS_SPLICE}, "splice", "splice"},
		{"pipe2", []int{unix.SYS_PIPE2}, "pipe2", "pipe2"},
		{"accept4", []int{unix.SYS_ACCEPT4}, "accept4", "accept4"},
		{"recvmmsg", []int{unix.SYS_RECVMMSG}, "recvmmsg", ""},
		{"sendmmsg", []int{unix.SYS_SENDMMSG}, "sendmmsg", ""},
		{"receiving messages", []int{unix.SYS_RECVMMSG, unix.SYS_RECVMSG}, "recvmmsg recvmsg", "recvmsg"},
		{"sending messages", []int{unix.SYS_SENDMMSG, unix.SYS_SENDMSG}, "sendmmsg sendmsg", "sendmsg"},
	} {
		for _, denied := range []syscall.Errno{unix.EPERM, unix.ENOSYS} {
			t.Run(tt.name+" "+unix.ErrnoName(denied), func(t *testing.T) {
				t.Parallel()
				if !testseccomp.Under(t, denied, tt.denied...) {
					return
				}
				forEachEngine(t, func(t *testing.T, h *house) {
					var mu sync.Mutex // of log
					log := &bytes.Buffer{}
					h.options.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Mutex: &mu, JSONFormat: true})
					testBulkBothWays(t, h, 3<<20)
					testUDPLosesNothing(t, h)
					want := tt.auto
					if h.options.Engine == EnginePortable {
						want = tt.portable
					}
					mu.Lock()
					defer mu.Unlock()
					if got := deniedIn(log); got != want {
						t.Errorf("the log reports denials of %q, want %q", got, want)
					}
				})
			})
		}
	}
}

// deniedIn returns the calls that a log reports as denied.
func deniedIn(log *bytes.Buffer) string {
	var names []string
	for line := range strings.Lines(log.String()) {
		if _, rest, ok := strings.Cut(line, `"call":"`); ok && strings.Contains(line, "the system denies a call") {
			name, _, _ := strings.Cut(rest, `"`)
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// docs/operations.md names each call, and insteadOf says what happens without it.
func TestDeniedCallsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for c := range sys.NumCalls {
		if !strings.Contains(string(text), "`"+c.String()+"`") {
			t.Errorf("%s is not in docs/operations.md", c)
		}
		if insteadOf[c] == "" {
			t.Errorf("insteadOf has no text for %s", c)
		}
	}
}
