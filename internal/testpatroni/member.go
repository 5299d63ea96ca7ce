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

// A Member is one Patroni and its PostgreSQL.
type Member struct {
	Name string
	Host string // 127.0.0.x
	Log  *testproc.Log

	cluster *Cluster
	dir     string
	output  io.Writer
	patroni *testproc.Process // nil: never started
	frozen  []int             // the processes that Freeze has stopped
}

// SQL is where PostgreSQL listens.
func (m *Member) SQL() string { return net.JoinHostPort(m.Host, m.cluster.SQLPort) }

// Port is where PostgreSQL listens at Host.
func (m *Member) Port() uint16 {
	port, _ := strconv.ParseUint(m.cluster.SQLPort, 10, 16)
	return uint16(port)
}

// REST is where Patroni's REST API listens.
func (m *Member) REST() string { return net.JoinHostPort(m.Host, m.cluster.RESTPort) }

func (m *Member) file() string { return filepath.Join(m.dir, "patroni.yml") }

// own gives the member's folder to the user that PostgreSQL runs as: it refuses to run as root.
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
		if err := os.Chmod(dir, 0o755); err != nil { // it must be possible to get there
			return err
		}
	}
	return os.Chown(m.dir, uid, gid)
}

// Start starts the member's Patroni, which starts PostgreSQL unless it runs.
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

// StartAsPostgres starts a program in a folder. If this process runs as root, the program does not: PostgreSQL,
// PgBouncer and what starts them refuse that.
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

// StopPatroni ends Patroni as an operator does. Unless the cluster is paused, Patroni stops PostgreSQL.
func (m *Member) StopPatroni() { m.patroni.Stop(syscall.SIGTERM, time.Minute) }

// KillPatroni ends Patroni with kill -9. PostgreSQL goes on.
func (m *Member) KillPatroni() {
	if m.patroni != nil {
		m.patroni.Kill()
	}
}

// KillPostgres ends all processes of PostgreSQL with kill -9.
func (m *Member) KillPostgres() {
	for _, pid := range m.postgres() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Freeze stops Patroni and PostgreSQL by SIGSTOP: the kernel still takes their connections, and nothing answers.
func (m *Member) Freeze() {
	m.frozen = append(m.postgres(), m.patroni.Pid())
	for _, pid := range m.frozen {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
}

// Thaw undoes Freeze.
func (m *Member) Thaw() {
	for _, pid := range m.frozen {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	m.frozen = nil
}

// Running reports whether Patroni runs.
func (m *Member) Running() bool { return m.patroni != nil && m.patroni.Running() }

// postgres returns the IDs of all processes of the member's PostgreSQL, the postmaster first; none if it does not run.
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

// owns reports whether a process is this member's postmaster: the file with its ID may be left over from before.
func (m *Member) owns(pid int) bool {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(args), filepath.Join(m.dir, "data"))
}

// children returns the processes whose parent is pid.
func children(pid int) (found []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil { // it has ended
			continue
		}
		_, after, _ := strings.Cut(string(text), ") ") // behind the name, which may have spaces
		if f := strings.Fields(after); len(f) > 1 && f[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			found = append(found, child)
		}
	}
	return found
}
