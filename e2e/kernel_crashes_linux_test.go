package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testcgroup"
)

// A crash says which process is killed during an upgrade, and when.
type crash struct {
	successor bool          // not the predecessor
	after     time.Duration // since the upgrade began; of the successor: since it runs
}

func (c crash) String() string {
	if c.successor {
		return fmt.Sprintf("the successor after %v", c.after)
	}
	return fmt.Sprintf("the predecessor after %v", c.after)
}

// One of the two processes of an upgrade is killed, at moments that are spread over the time that an upgrade takes.
// Connections on the kernel path go on. If a process is left that serves, it goes on alone, and its programs are the
// only ones that are attached. Otherwise clients wait for the next process, as with a .socket unit of systemd.
func TestKernelPathHandOverIsKilled(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	file, web := heldListener(t)
	dns := freePort(t)
	config := onPath(group, serviceAt("web", web, endpoints(startEcho(t, "a"))),
		serviceAt("dns", dns, udp, static(startWhence(t, "b"))))
	start := func(t *testing.T) *dynasty {
		must(t, group.Leave())
		d := foundWith(t, config, []*os.File{file},
			[]string{"sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"`, "sh"})
		must(t, group.Enter())
		return d
	}
	d := start(t)
	programs := group.Programs(t)
	began := time.Now()
	d.upgrade(t)
	took, seed := time.Since(began), uint64(time.Now().UnixNano())
	t.Logf("an upgrade takes %v; the seed is %d", took, seed)
	d.wantNothingAttached(t, group)
	n, random := upgrades(t, 8), rand.New(rand.NewPCG(seed, 0))
	for i := range n {
		part := (float64(i) + random.Float64()) / float64(n)
		c := crash{i%2 == 1, time.Duration(part * float64(took))}
		t.Run(c.String(), func(t *testing.T) {
			d := start(t)
			conn, session := mustConnect(t, web), dialUDP(t, dns)
			goOn := func() {
				conn.mustEcho(t, "still there?")
				if _, err := exactly(session, "whence"); err != nil {
					t.Error(err)
				}
			}
			if c.happens(t, d) {
				eventually(t, "the programs of one process", func() error {
					if n := group.Programs(t); n != programs {
						return fmt.Errorf("%d, want %d", n, programs)
					}
					return nil
				})
			} else {
				goOn()
				defer start(t).wantNothingAttached(t, group)
			}
			goOn()
			wantCounts(t, web, map[string]int{"a": 3})
			d.end(t)
			goOn()
		})
	}
	d.wantNothingAttached(t, group)
}

// happens makes the crash, and reports whether a process of d serves then.
func (c crash) happens(t *testing.T, d *dynasty) (serves bool) {
	t.Helper()
	upgrade := exec.Command(lictorPath(t), "upgrade", "-admin", "unix://"+filepath.Join(d.runtime, "admin.sock"))
	upgrade.Env = environment()
	must(t, upgrade.Start())
	victim := d.Pid()
	if c.successor {
		eventually(t, "a successor", func() error {
			others := slices.DeleteFunc(d.processes(t), func(pid int) bool { return pid == d.Pid() })
			if len(others) == 0 {
				return errors.New("there is none")
			}
			victim = others[0]
			return nil
		})
	}
	<-time.After(c.after)
	must(t, syscall.Kill(victim, syscall.SIGKILL))
	err := upgrade.Wait()
	if c.successor {
		return err != nil // the predecessor has not been replaced
	}
	eventually(t, "the successor serves, or has ended", func() error {
		log, err := os.ReadFile(d.err)
		must(t, err)
		serves = bytes.Contains(log, []byte(`"taken over from another process"`))
		if all := d.processes(t); !serves && len(all) > 0 {
			return fmt.Errorf("neither: %v", all)
		}
		return nil
	})
	return serves
}

// processes returns the IDs of the processes that have not ended.
func (d *dynasty) processes(t testing.TB) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil { // the process has ended
			continue
		}
		_, after, _ := strings.Cut(string(text), ") ") // state, parent, process group
		if f := strings.Fields(after); len(f) > 2 && f[0] != "Z" && f[2] == strconv.Itoa(d.Pid()) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			must(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// wantNothingAttached ends all processes, and fails the test if programs are still attached to the group then.
func (d *dynasty) wantNothingAttached(t testing.TB, g *testcgroup.Group) {
	t.Helper()
	d.end(t)
	eventually(t, "no programs are attached", func() error {
		if n := g.Programs(t); n > 0 {
			return fmt.Errorf("%d programs", n)
		}
		return nil
	})
}
