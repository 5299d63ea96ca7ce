//go:build unix

package testpatroni

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A Member is one Patroni with its PostgreSQL.
type Member struct {
	Name string
	Host string // 127.0.0.x
	Log  *testproc.Log

	cluster *Cluster
	dir     string
	output  io.Writer
	patroni *testproc.Process // nil if never started
	frozen  []int             // processes that Freeze has stopped
}

// SQL returns the address of PostgreSQL.
func (m *Member) SQL() string { return net.JoinHostPort(m.Host, m.cluster.SQLPort) }

// Port returns the port of PostgreSQL.
func (m *Member) Port() uint16 {
	port, _ := strconv.ParseUint(m.cluster.SQLPort, 10, 16)
	return uint16(port)
}

// REST returns the address of Patroni's REST API.
func (m *Member) REST() string { return net.JoinHostPort(m.Host, m.cluster.RESTPort) }

func (m *Member) file() string { return filepath.Join(m.dir, "patroni.yml") }

// own gives the member's folder to the user of PostgreSQL, which refuses to run as root.
func (m *Member) own() error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(superuser)
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	for dir := filepath.Dir(m.dir); dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // the user of PostgreSQL must be able to reach the folder
			return err
		}
	}
	return os.Chown(m.dir, uid, gid)
}

// Start starts the member's Patroni, which starts PostgreSQL if needed.
func (m *Member) Start() error {
	if m.Log == nil {
		m.Log = &testproc.Log{Copy: m.output}
	}
	p, err := StartAsPostgres(m.dir, m.Log, "patroni", m.file())
	if err == nil {
		m.patroni = p
	}
	return err
}

// StartAsPostgres starts a program in a folder. If this process runs as root, the program runs as the user postgres,
// because PostgreSQL, PgBouncer and Patroni refuse to run as root.
func StartAsPostgres(dir string, output io.Writer, args ...string) (*testproc.Process, error) {
	if os.Geteuid() == 0 {
		args = append([]string{"setpriv", "--reuid", superuser, "--regid", superuser, "--init-groups",
			"--pdeathsig", "KILL"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "PATRONI") && !strings.HasPrefix(v, "CONSUL") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+dir)
	cmd.Stdout, cmd.Stderr = output, output
	return testproc.Start(cmd)
}

// StopPatroni stops Patroni as an operator does. Patroni then stops PostgreSQL, unless the cluster is paused.
func (m *Member) StopPatroni() { m.patroni.Stop(syscall.SIGTERM, time.Minute) }

// KillPatroni kills Patroni with SIGKILL. PostgreSQL continues.
func (m *Member) KillPatroni() {
	if m.patroni != nil {
		m.patroni.Kill()
	}
}

// KillPostgres kills all processes of PostgreSQL with SIGKILL.
func (m *Member) KillPostgres() {
	for _, pid := range m.postgres() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Freeze stops Patroni and PostgreSQL with SIGSTOP. The kernel still accepts their connections, but nothing answers.
func (m *Member) Freeze() {
	m.frozen = append(m.postgres(), m.patroni.Pid())
	for _, pid := range m.frozen {
		_ = testproc.Freeze(pid)
	}
}

// Thaw undoes Freeze.
func (m *Member) Thaw() {
	for _, pid := range m.frozen {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	m.frozen = nil
}

// Running reports whether Patroni is running.
func (m *Member) Running() bool { return m.patroni != nil && m.patroni.Running() }

// postgres returns the process IDs of the member's PostgreSQL, the postmaster first. postgres returns none if
// PostgreSQL does not run.
func (m *Member) postgres() []int {
	text, err := os.ReadFile(filepath.Join(m.dir, "data", "postmaster.pid"))
	if err != nil {
		return nil
	}
	first, _, _ := strings.Cut(string(text), "\n")
	postmaster, err := strconv.Atoi(first)
	if err != nil || !m.owns(postmaster) {
		return nil
	}
	return append([]int{postmaster}, children(postmaster)...)
}

// owns reports whether a process is this member's postmaster. The file with the process ID may be from an earlier run.
func (m *Member) owns(pid int) bool {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(args), filepath.Join(m.dir, "data"))
}

// children returns the child processes of pid.
func children(pid int) (found []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil { // the process has ended
			continue
		}
		_, after, _ := strings.Cut(string(text), ") ") // after the name, which may contain spaces
		if f := strings.Fields(after); len(f) > 1 && f[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			found = append(found, child)
		}
	}
	return found
}
