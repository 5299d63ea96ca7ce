//go:build linux

package packaging

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testnet"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// imageVar is the environment variable with the path of the image, for the process in a namespace.
const imageVar = "LICTOR_TEST_IMAGE"

// A descriptor refers to a blob of an OCI image layout.
type descriptor struct {
	Digest      string
	Platform    struct{ OS, Architecture string }
	Annotations map[string]string
}

// An imageConfig is what an image says about its containers.
type imageConfig struct {
	OS, Architecture string
	Config           struct {
		User, StopSignal     string
		Entrypoint, Cmd, Env []string
		Healthcheck          struct{ Test []string }
		Labels               map[string]string
	}
}

// An image is the tar file of an OCI image layout: its files by their names.
type image map[string][]byte

func openImage(t *testing.T, path string) image {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	files := image{}
	eachFile(t, file, func(header *tar.Header, content []byte) { files[header.Name] = content })
	return files
}

func eachFile(t *testing.T, from io.Reader, do func(header *tar.Header, content []byte)) {
	t.Helper()
	for archive := tar.NewReader(from); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		do(header, content)
	}
}

// blob decodes the blob with a digest.
func (i image) blob(t *testing.T, digest string, into any) {
	t.Helper()
	content, found := i["blobs/"+strings.ReplaceAll(digest, ":", "/")]
	if !found {
		t.Fatalf("the image has no blob %s", digest)
	}
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatal(err)
	}
}

// unpack writes the files for this architecture to root, and returns the configuration.
func (i image) unpack(t *testing.T, root string) (config imageConfig) {
	t.Helper()
	var layout, index struct{ Manifests []descriptor }
	if err := json.Unmarshal(i["index.json"], &layout); err != nil || len(layout.Manifests) != 1 {
		t.Fatalf("got the layout %+v, %v", layout, err)
	}
	if name := layout.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; name != "lictor:0.1.0" {
		t.Errorf("the image is named %q", name)
	}
	i.blob(t, layout.Manifests[0].Digest, &index)
	for _, each := range index.Manifests {
		if each.Platform.OS != "linux" || each.Platform.Architecture != runtime.GOARCH {
			continue
		}
		var manifest struct {
			Config descriptor
			Layers []descriptor
		}
		i.blob(t, each.Digest, &manifest)
		i.blob(t, manifest.Config.Digest, &config)
		for _, layer := range manifest.Layers {
			i.extract(t, layer, root)
		}
		return config
	}
	t.Fatalf("the image has no linux/%s: %+v", runtime.GOARCH, index)
	return config
}

// extract writes the files of a layer to root.
func (i image) extract(t *testing.T, layer descriptor, root string) {
	t.Helper()
	layers, err := gzip.NewReader(bytes.NewReader(i["blobs/"+strings.ReplaceAll(layer.Digest, ":", "/")]))
	if err != nil {
		t.Fatal(err)
	}
	eachFile(t, layers, func(header *tar.Header, content []byte) {
		path, err := filepath.Join(root, header.Name), error(nil)
		if header.Typeflag == tar.TypeDir {
			err = os.Mkdir(path, 0o755)
		} else {
			err = os.WriteFile(path, content, 0o600)
		}
		if err := errors.Join(err, unix.Chmod(path, uint32(header.Mode))); err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 {
			t.Errorf("%s belongs to %d:%d, not to root", header.Name, header.Uid, header.Gid)
		}
	})
}

// A container of the image serves its clients as a user without privileges, in a root that is read-only. It is healthy,
// and ends when it is told to.
func TestContainer(t *testing.T) {
	if os.Getuid() != 0 {
		testproc.Cannot(t, "a container has a user of its own", errors.New("this needs root"))
	}
	if !testnet.Inside(t, imageVar+"="+imagePath(t)) {
		return
	}
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	config := openImage(t, os.Getenv(imageVar)).unpack(t, root)
	services := `service "web" {
		listen = "127.0.0.1:9000"
		static { endpoints = ["` + startEcho(t) + `"] }
	}`
	if err := os.WriteFile(filepath.Join(root, "etc/lictor/web.hcl"), []byte(services), 0o644); err != nil {
		t.Fatal(err)
	}
	mountAsContainer(t, root)

	var log testproc.Log
	lictor := config.command(t, root, append(config.Config.Entrypoint, config.Config.Cmd...))
	lictor.SysProcAttr.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	lictor.Stdout, lictor.Stderr = &log, &log
	process, err := testproc.Start(lictor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Kill)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("lictor said:\n%s", log.Tail(30))
		}
	})

	testproc.Await(t, "a service of the container answers", func() bool { return exchange("127.0.0.1:9000") == nil })
	checkStatus(t, process.Pid())
	health := config.Config.Healthcheck.Test
	if len(health) < 2 || health[0] != "CMD" {
		t.Fatalf("got the health check %q", health)
	}
	out, err := config.command(t, root, health[1:]).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "127.0.0.1:9000") {
		t.Errorf("the health check of a healthy container: %v\n%s", err, out)
	}

	if got := config.Config.StopSignal; got != "SIGTERM" {
		t.Fatalf("the container is stopped by %q", got)
	}
	if err := process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testproc.Patience)
	defer cancel()
	if code, err := process.ExitCode(ctx); code != 0 || err != nil {
		t.Errorf("got %d, %v after SIGTERM, want 0", code, err)
	}
	var exit *exec.ExitError
	if err := config.command(t, root, health[1:]).Run(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("the health check of a container that has ended: got %v, want exit code 3", err)
	}
}

// mountAsContainer makes root read-only, and writable what the documents say, for the rest of the test and for the
// processes that the test starts.
func mountAsContainer(t *testing.T, root string) {
	t.Helper()
	runtime.LockOSThread() // a mount namespace belongs to the thread, which ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		testproc.Cannot(t, "a mount namespace cannot be made", err)
	}
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount(root, root, "", unix.MS_BIND, ""),
		unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|flags, ""),
		unix.Mount("proc", filepath.Join(root, "proc"), "proc", flags, ""),
	)
	for _, writable := range []string{"tmp", "run/lictor", "var/lib/lictor"} {
		path := filepath.Join(root, writable)
		info, statErr := os.Stat(path)
		if statErr != nil {
			t.Fatal(statErr)
		}
		if info.Mode() != os.ModeDir|os.ModeSticky|0o777 {
			t.Errorf("/%s has the mode %v", writable, info.Mode())
		}
		err = errors.Join(err, unix.Mount("tmpfs", path, "tmpfs", flags, "mode=1777"))
	}
	if err != nil {
		testproc.Cannot(t, "a root cannot be mounted", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) }) // the test removes its folders next
}

// command returns a command that runs in a root as the image says.
func (c imageConfig) command(t *testing.T, root string, args []string) *exec.Cmd {
	t.Helper()
	user, group, _ := strings.Cut(c.Config.User, ":")
	uid, err := strconv.ParseUint(user, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(group, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = "/", c.Config.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot: root, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
	}
	return cmd
}

// checkStatus compares what the kernel says about a process with what the test wanted to have.
func checkStatus(t *testing.T, pid int) {
	t.Helper()
	status := read(t, fmt.Sprintf("/proc/%d/status", pid))
	for _, want := range []string{"\nUid:\t65534\t", "\nGid:\t65534\t", "\nCapEff:\t0000000000000000\n",
		fmt.Sprintf("\nNSpid:\t%d\t1\n", pid)} {
		if !strings.Contains(status, want) {
			t.Errorf("the process lacks %q:\n%s", want, status)
		}
	}
}

// startEcho returns the address of a server that sends back what it gets.
func startEcho(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go serveEcho(l, done)
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// serveEcho serves one client at a time until the listener is closed.
func serveEcho(l net.Listener, done chan<- struct{}) {
	defer close(done)
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(conn, conn) // the client sees what is missing
		_ = conn.Close()
	}
}

// exchange sends a line on a new connection and waits for it to come back.
func exchange(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(testproc.Patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		return err
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\n" {
		return fmt.Errorf("got %q, %w", line, err)
	}
	return nil
}

// checkImage compares the image with what its users need.
func checkImage(t *testing.T, path string) {
	t.Helper()
	root, files := t.TempDir(), openImage(t, path)
	config := files.unpack(t, root)
	if config.OS != "linux" || config.Architecture != runtime.GOARCH {
		t.Errorf("the image is for %s/%s", config.OS, config.Architecture)
	}
	if got := config.Config.Labels["org.opencontainers.image.version"]; got != "v0.1.0" {
		t.Errorf("the image has the version %q", got)
	}
	for _, file := range []string{"usr/bin/lictor", "etc/lictor/lictor.hcl", "usr/share/doc/lictor/LICENSE",
		"usr/share/doc/lictor/THIRD-PARTY-NOTICES", "usr/share/doc/ca-certificates/LICENSE"} {
		if info, err := os.Stat(filepath.Join(root, file)); err != nil || info.Size() < 100 {
			t.Errorf("the image lacks %s: %v", file, err)
		}
	}
	manual := read(t, "../docs/containers.md")
	for line := range strings.Lines(read(t, filepath.Join(root, "etc/lictor/lictor.hcl"))) {
		if strings.Contains(line, " = ") && !strings.Contains(manual, "`"+strings.TrimSpace(line)+"`") {
			t.Errorf("docs/containers.md does not say that the image sets %s", line)
		}
	}
	if passwd := read(t, filepath.Join(root, "etc/passwd")); !strings.Contains(passwd, "\nlictor:x:65534:65534:") {
		t.Errorf("the image has these users:\n%s", passwd)
	}
	var older []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &older); err != nil || len(older) != 1 {
		t.Fatalf("for older Docker there is %+v, %v", older, err)
	}
	if got, want := older[0].RepoTags, "lictor:0.1.0-"+runtime.GOARCH; len(got) != 1 || got[0] != want {
		t.Errorf("older Docker names the image %q, want %q", got, want)
	}
	for _, file := range append(older[0].Layers, older[0].Config) {
		if files[file] == nil {
			t.Errorf("older Docker does not find %s", file)
		}
	}
	roots := []byte(read(t, filepath.Join(root, "etc/ssl/certs/ca-certificates.crt")))
	count := bytes.Count(roots, []byte("BEGIN CERTIFICATE"))
	if pool := x509.NewCertPool(); count < 50 || !pool.AppendCertsFromPEM(roots) {
		t.Errorf("the image has %d certificate authorities", count)
	}
}
