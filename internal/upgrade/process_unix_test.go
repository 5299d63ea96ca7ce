//go:build unix

package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// childVariable makes this test binary run one of children instead of its tests.
const childVariable = "LICTOR_TEST_CHILD"

func TestMain(m *testing.M) {
	if child := os.Getenv(childVariable); child != "" {
		if err := children()[child](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func children() map[string]func() error {
	return map[string]func() error{
		"takes over": takesOver,
		"fails": func() error {
			p, err := FindPredecessor(os.Getenv)
			p.Failed(errors.New("the configuration is bad"))
			return err
		},
		"ends":       func() error { os.Exit(3); return nil },
		"is silent":  func() error { time.Sleep(time.Hour); return nil }, // until it is killed
		"says what?": func() error { return sayUnexpected() },
		"activated":  activated,
	}
}

// A report is what a child that has taken over has received.
type report struct {
	Sockets  []string
	State    State
	Sessions []string // client addresses
	Uses     []ProcessUses
	Admin    string
	Counters []string
}

// takesOver is a complete successor. It sends its report to the first client of the first TCP listener.
func takesOver() error {
	p, err := FindPredecessor(os.Getenv)
	if err != nil {
		return err
	}
	r := report{State: p.State()}
	var listener net.Listener
	for _, s := range p.Sockets() {
		r.Sockets = append(r.Sockets, fmt.Sprintf("%s %s %s", s.Protocol, s.Addr, s.Service))
		if listener == nil && s.Protocol == proxy.TCP {
			if listener, err = net.FileListener(s.File); err != nil {
				return err
			}
		}
	}
	file, address := p.Admin()
	if file != nil {
		r.Admin = address
	}
	sessions, err := p.Sessions(Build{Version: "v2", Revision: "abc"}, file != nil)
	if err != nil {
		return err
	}
	for _, s := range sessions {
		r.Sessions = append(r.Sessions, s.Client.String())
		if _, err := syscall.Getsockname(s.FD); err != nil {
			return fmt.Errorf("session of %s: %w", s.Client, err)
		}
	}
	r.Uses, r.Counters = p.Uses(), []string{string(p.Counters())}
	formers, err := p.Serving()
	if err != nil {
		return err
	}
	r.Counters = append(r.Counters, string(p.Counters()))
	for _, f := range formers {
		report, err := f.Receive()
		if err != nil {
			return fmt.Errorf("process %d: %w", f.PID, err)
		}
		r.Uses = append(r.Uses, ProcessUses{f.PID, report.Uses})
		r.Counters = append(r.Counters, string(report.Counters))
		f.Close()
	}
	client, err := listener.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	return json.NewEncoder(client).Encode(r)
}

func sayUnexpected() error {
	fd, err := strconv.Atoi(os.Getenv(variable))
	if err != nil {
		return err
	}
	c, err := inheritConn(fd)
	if err != nil {
		return err
	}
	if _, err := c.receive(new(message)); err != nil {
		return err
	}
	if err := c.send(message{Kind: kindServing}); err != nil {
		return err
	}
	_, err = c.receive(new(message)) // until it is killed
	return err
}

// launch starts a child of this kind as the successor.
func launch(t *testing.T, child string) *Successor {
	t.Helper()
	t.Setenv(childVariable, child)
	s, err := Launch(os.Args[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// listeners returns n TCP listeners in the form in which the proxier passes them.
func listeners(t *testing.T, n int) (all []proxy.Inherited) {
	t.Helper()
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		addr := l.Addr().(*net.TCPAddr).AddrPort()
		all = append(all, proxy.Inherited{Addr: lb.Addr{AddrPort: addr}, Service: fmt.Sprint("web", i), File: f})
	}
	return all
}

func TestProcessTakesOver(t *testing.T) {
	const n = maxDescriptors + 20 // more than one message can have
	offer := Offer{Sockets: listeners(t, n), Address: "unix:///run/test.sock", State: State{
		PID: os.Getpid(), Saved: []byte("saved"), Drained: map[string][]string{"web0": {"n/1"}},
		Sets: []lb.Endpoints{{Service: "web0", Endpoints: []lb.Endpoint{{ID: "n/1",
			Addr: netip.MustParseAddrPort("10.0.0.1:80")}}}},
		Links: []cycles.Link{{}},
	}}
	admin, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	offer.Admin = admin.(syscall.Conn)
	var sessions []proxy.Session
	for i := range n {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = syscall.Close(fd) }()
		client := netip.AddrPortFrom(netip.MustParseAddr("10.1.1.1"), uint16(1000+i))
		sessions = append(sessions, proxy.Session{Client: client, FD: fd})
	}

	s := launch(t, "takes over")
	if err := s.Prepare(t.Context(), offer); err != nil {
		t.Fatal(err)
	}
	if want := (Build{Version: "v2", Revision: "abc"}); s.Build() != want || !s.TookAdmin() {
		t.Errorf("got %v, %v, want %v and the admin API", s.Build(), s.TookAdmin(), want)
	}
	used := []ProcessUses{{os.Getpid(), uses(1)}, {9, uses(2)}}
	if err := s.Commit(t.Context(), sessions, used, json.RawMessage("1")); err != nil {
		t.Fatal(err)
	}
	earlier, former := linked(t, 9)
	serving, err := s.Release([]*Former{former}, json.RawMessage("2"))
	if err != nil {
		t.Fatal(err)
	}
	defer serving.Close()
	moved, err := earlier.Moved()
	if err != nil {
		t.Fatal(err)
	}
	defer moved.Close()
	if err := errors.Join(serving.Tell(Report{Uses: uses(3), All: true, Counters: json.RawMessage("3")}),
		moved.Tell(Report{Uses: uses(4), All: true})); err != nil {
		t.Error(err)
	}
	client, err := net.DialTimeout("tcp", offer.Sockets[0].Addr.String(), testproc.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	_ = client.SetDeadline(time.Now().Add(testproc.Patience))
	var got report
	if err := json.NewDecoder(client).Decode(&got); err != nil {
		t.Fatal(err)
	}
	checkReport(t, got, offer, n)
	testproc.Receive(t, "the end of the child", s.ended)
	if !s.cmd.ProcessState.Success() {
		t.Errorf("the child: %v", s.cmd.ProcessState)
	}
}

// uses returns a list of one use with count n.
func uses(n int64) []Use { return []Use{{Service: "web", ID: "n/1", Address: "10.0.0.1:80", Count: n}} }

func checkReport(t *testing.T, got report, offer Offer, n int) {
	t.Helper()
	pid := os.Getpid()
	if want := []ProcessUses{{pid, uses(1)}, {9, uses(2)}, {pid, uses(3)}, {9, uses(4)}}; !reflect.DeepEqual(got.Uses,
		want) {
		t.Errorf("got uses %v, want %v", got.Uses, want)
	}
	if want := []string{"1", "2", "3", ""}; !slices.Equal(got.Counters, want) {
		t.Errorf("got counters %q, want %q", got.Counters, want)
	}
	for i, s := range offer.Sockets {
		if want := fmt.Sprintf("tcp %s web%d", s.Addr, i); len(got.Sockets) != n || got.Sockets[i] != want {
			t.Fatalf("got %d sockets, %d of them %v, want %s", len(got.Sockets), i, got.Sockets, want)
		}
	}
	if got.Admin != offer.Address {
		t.Errorf("admin API: got %q, want %q", got.Admin, offer.Address)
	}
	if len(got.Sessions) != n || got.Sessions[n-1] != fmt.Sprint("10.1.1.1:", 1000+n-1) {
		t.Errorf("got %d sessions: %v", len(got.Sessions), got.Sessions)
	}
	state := got.State
	if state.PID != os.Getpid() || string(state.Saved) != "saved" || len(state.Links) != 1 ||
		!slices.Equal(state.Drained["web0"], []string{"n/1"}) ||
		state.Sets[0].Endpoints[0] != offer.State.Sets[0].Endpoints[0] {
		t.Errorf("got the state %+v", state)
	}
}

// If a successor does not take over, the error says why, and no process is left behind.
func TestSuccessorThatDoesNotTakeOver(t *testing.T) {
	for child, want := range map[string]string{
		"fails":      "the configuration is bad",
		"ends":       "has ended (exit status 3)",
		"says what?": `sent "serving" instead of "ready"`,
	} {
		t.Run(child, func(t *testing.T) {
			s := launch(t, child)
			if err := s.Prepare(t.Context(), Offer{}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			s.Kill()
			if !isClosed(s.ended) {
				t.Error("it has not ended")
			}
		})
	}
}

// A process that ends does not wait for a hung successor.
func TestSuccessorThatIsSilentIsGivenUp(t *testing.T) {
	s := launch(t, "is silent")
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- s.Prepare(ctx, Offer{}) }()
	cancel()
	err := testproc.Receive(t, "the result", result)
	if err == nil || !strings.Contains(err.Error(), "not ready in time") {
		t.Errorf("got %v", err)
	}
	go func() { result <- s.Commit(ctx, nil, nil, nil) }()
	if err := testproc.Receive(t, "another result", result); err == nil {
		t.Error("a successor that was given up takes over")
	}
}

func TestProgramThatCannotBeStarted(t *testing.T) {
	s, err := Launch(filepath.Join(t.TempDir(), "nothing"), nil)
	if err == nil || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "cannot be started") {
		t.Errorf("got %v", err)
	}
	s.Kill() // a nil Successor
}

func TestSuccessorDoesNotInheritWhatIsForThisProcess(t *testing.T) {
	got := successorEnvironment([]string{
		"PATH=/bin", "LISTEN_PID=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=x", "WATCHDOG_PID=3", "WATCHDOG_USEC=4",
		"NOTIFY_SOCKET=/run/x", variable + "=3",
	})
	if want := []string{"PATH=/bin", "WATCHDOG_USEC=4", "NOTIFY_SOCKET=/run/x"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// activated prints the sockets that systemd would have passed.
func activated() error {
	all, err := ActivationSockets(func(name string) string {
		return map[string]string{"LISTEN_PID": fmt.Sprint(os.Getpid()), "LISTEN_FDS": os.Getenv("TEST_FDS")}[name]
	})
	for _, s := range all {
		fmt.Println(s.Protocol, s.Addr)
	}
	return err
}

func runActivated(t *testing.T, fds string, files ...*os.File) (string, error) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=activated", "TEST_FDS="+fds)
	cmd.ExtraFiles = files
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestActivationSockets(t *testing.T) {
	tcp := listeners(t, 1)[0]
	conn, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	udp, err := conn.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	out, err := runActivated(t, "2", tcp.File, udp)
	if want := fmt.Sprintf("tcp %s\nudp %s\n", tcp.Addr, conn.LocalAddr()); err != nil || out != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}

func TestActivationSocketsThatDoNotFit(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = read.Close(), write.Close() }()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	silent := os.NewFile(uintptr(fd), "")
	defer func() { _ = silent.Close() }()
	dir := t.TempDir()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	unix, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close() }()
	for _, tt := range []struct {
		name, fds string
		file      *os.File
		want      string
	}{
		{"pipe", "1", read, "inherited descriptor 3: getsockname"},
		{"TCP without listen", "1", silent, "does not listen"},
		{"Unix datagrams", "1", unix, "not a stream socket"},
		{"no number", "x", read, `LISTEN_FDS: "x"`},
		{"negative", "-1", read, `LISTEN_FDS: "-1"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if out, err := runActivated(t, tt.fds, tt.file); err == nil || !strings.Contains(out, tt.want) {
				t.Errorf("got %q, %v, want %q", out, err, tt.want)
			}
		})
	}
	all, err := ActivationSockets(func(string) string { return "1" }) // the sockets are for another process
	if all != nil || err != nil {
		t.Errorf("got %v, %v", all, err)
	}
}

func TestProgramPathIsNotResolved(t *testing.T) {
	old := os.Args[0]
	defer func() { os.Args[0] = old }()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(old, link); err != nil {
		t.Fatal(err)
	}
	os.Args[0] = link
	if got, err := ProgramPath(); got != link || err != nil {
		t.Errorf("got %s, %v, want %s", got, err, link)
	}
	os.Args[0] = filepath.Join(t.TempDir(), "gone")
	if got, err := ProgramPath(); err != nil || !filepath.IsAbs(got) {
		t.Errorf("got %s, %v", got, err)
	}
}
