package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/regular"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// An asker is the part of a command that asks a running lictor through its admin API.
type asker struct {
	console
	name      string // of the command
	address   string
	tokenFile string
	json      bool
}

// askFlags adds the options of every command that asks a running lictor.
func (a *asker) askFlags(f *flag.FlagSet) {
	a.addressFlags(f)
	f.BoolVar(&a.json, "json", false, "")
}

// addressFlags adds the options for the address and the token of the running lictor.
func (a *asker) addressFlags(f *flag.FlagSet) {
	f.StringVar(&a.address, "admin", os.Getenv("LICTOR_ADMIN"), "")
	f.StringVar(&a.tokenFile, "token-file", os.Getenv("LICTOR_ADMIN_TOKEN_FILE"), "")
}

const askOptions = `  -admin ADDRESS      Address of the running lictor's admin API:
                      unix:///path/to/socket or IP:PORT, as in its admin block.
                      Default: $LICTOR_ADMIN, or else admin.sock in
                      $RUNTIME_DIRECTORY, /run/lictor or
                      $XDG_RUNTIME_DIR/lictor. A default socket of another user
                      is used only if that user owns its folder too.
  -token-file PATH    File with the token of its admin block. Default:
                      $LICTOR_ADMIN_TOKEN_FILE.
`

func askCompletions(f *flag.FlagSet) predictors {
	return completeFlags(f, predictors{"-token-file": files("*")})
}

// An errNobody says that no running lictor answers.
type errNobody struct {
	tried  []string // a line for each address, with the reason
	denied bool     // whether this user may not open one of the sockets
}

// add records that err prevented an answer from the address.
func (e *errNobody) add(address admin.Address, err error) {
	e.tried = append(e.tried, fmt.Sprintf("%s: %v", address, cause(err)))
	e.denied = e.denied || errors.Is(err, fs.ErrPermission)
}

func (e *errNobody) Error() string {
	hint := "Start one with \"lictor run\"."
	if e.denied {
		hint = "Ask as root, for example with sudo, or as the user that lictor runs as."
	}
	return "no running lictor answers\n  " + strings.Join(e.tried, "\n  ") + "\n" + hint +
		" If its admin block has another address, give that with -admin or in $LICTOR_ADMIN."
}

// connect finds the running lictor. It returns a client for its API, which the caller must close, and its status.
func (a *asker) connect(ctx context.Context) (*admin.Client, *admin.Status, error) {
	token, err := a.token()
	if err != nil {
		return nil, nil, err
	}
	var candidates []admin.Address
	trust := admin.Chosen
	if a.address != "" {
		address, err := admin.ParseAddress(a.address)
		if err != nil {
			return nil, nil, fmt.Errorf("-admin: %w", err)
		}
		candidates = append(candidates, address)
	} else {
		// Do not try a TCP address by default: any local user could listen there.
		trust = admin.Found
		for _, path := range admin.DefaultSockets(os.Getenv) {
			candidates = append(candidates, admin.Address{Socket: path})
		}
	}
	var nobody errNobody
	for _, address := range candidates {
		client := admin.NewClient(address, token, trust)
		status := &admin.Status{}
		err := client.Get(ctx, "/v1/status", status)
		var answer *admin.APIError
		if err == nil || errors.As(err, &answer) || ctx.Err() != nil {
			return client, status, err
		}
		client.Close()
		nobody.add(address, err)
	}
	return nil, nil, &nobody
}

// cause returns the system error in err, without the address around it. Without a system error it returns err.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func (a *asker) token() (string, error) {
	if a.tokenFile == "" {
		return "", nil
	}
	text, err := regular.ReadFile(a.tokenFile, admin.MaxTokenFile)
	return strings.TrimSpace(string(text)), err
}

// fail prints err and returns the exit code for it.
func (a *asker) fail(err error) int {
	var nobody *errNobody
	var answer *admin.APIError
	hint := ""
	if errors.As(err, &answer) && answer.Code == http.StatusUnauthorized {
		hint = "\nGive the file of the token with -token-file or in $LICTOR_ADMIN_TOKEN_FILE."
	}
	fmt.Fprintf(a.err, "lictor %s: %s%s\n", a.name, visible.Lines(err.Error()), hint)
	if errors.As(err, &nobody) {
		return exitNobody
	}
	return exitFailed
}

var errEnded = errors.New("lictor has ended")

// endedOr returns errEnded if err shows that a lictor which has answered before is gone: it closed the connection or no
// longer listens. Otherwise endedOr returns err.
func endedOr(err error) error {
	for _, end := range []error{
		io.EOF, io.ErrUnexpectedEOF, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ENOENT,
	} {
		if errors.Is(err, end) {
			return errEnded
		}
	}
	return err
}

// print writes v to stdout as indented JSON.
func (a *asker) print(v any) error {
	enc := json.NewEncoder(visible.NewJSONWriter(a.out))
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// servicePath returns the path of a service in the admin API.
func servicePath(name string) string { return "/v1/services/" + url.PathEscape(name) }

// service asks for one service. If there is none of that name, the error suggests a similar name.
func service(ctx context.Context, client *admin.Client, name string) (*admin.Service, error) {
	s := &admin.Service{}
	if name == "." || name == ".." { // a URL path cannot contain these names
		return nil, fmt.Errorf("there is no service %q", name)
	}
	err := client.Get(ctx, servicePath(name), s)
	var answer *admin.APIError
	if !errors.As(err, &answer) || answer.Code != http.StatusNotFound {
		return s, err
	}
	var all admin.ServicesAnswer
	if client.Get(ctx, "/v1/services", &all) != nil {
		return nil, err
	}
	var names []string
	for _, one := range all.Services {
		names = append(names, one.Name)
	}
	return nil, fmt.Errorf("%w%s", err, suggestion(name, names))
}

// ago returns how long ago t was, such as "3m ago", or "never" if t is nil.
func ago(now time.Time, t *time.Time) string {
	if t == nil {
		return "never"
	}
	return brief(now.Sub(*t)) + " ago"
}

// brief returns a duration in its largest unit, rounded down: 350ms, 12s, 5m, 3h, 9d. A negative duration gives 0ms.
func brief(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", max(d, 0).Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
