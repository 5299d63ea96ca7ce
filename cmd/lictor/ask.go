package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/posener/complete"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/regular"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// An asker is the part of a command that asks a running lictor.
type asker struct {
	console
	name      string // of the command
	address   string
	tokenFile string
	json      bool
}

// askFlags adds the options of every command that asks.
func (a *asker) askFlags(f *flag.FlagSet) {
	a.addressFlags(f)
	f.BoolVar(&a.json, "json", false, "")
}

// addressFlags adds the options that say where the running lictor answers.
func (a *asker) addressFlags(f *flag.FlagSet) {
	f.StringVar(&a.address, "admin", os.Getenv("LICTOR_ADMIN"), "")
	f.StringVar(&a.tokenFile, "token-file", os.Getenv("LICTOR_ADMIN_TOKEN_FILE"), "")
}

const askOptions = `  -admin ADDRESS      Where the running lictor answers: unix:///path/to/socket
                      or an IP address with a port, as in its admin block.
                      Default: $LICTOR_ADMIN, or else the usual sockets (the
                      admin.sock of $RUNTIME_DIRECTORY, /run/lictor,
                      $XDG_RUNTIME_DIR/lictor). A socket that another user
                      serves is asked only if its folder is that user's.
  -token-file PATH    The token that its admin block asks for. Default:
                      $LICTOR_ADMIN_TOKEN_FILE.
`

func askCompletions(f *flag.FlagSet) complete.Flags {
	return completeFlags(f, complete.Flags{"-token-file": complete.PredictFiles("*")})
}

// An errNobody is the error when no running lictor was found. Its lines in tried say for each address why.
type errNobody struct{ tried []string }

func (e *errNobody) Error() string {
	return "no running lictor answers\n  " + strings.Join(e.tried, "\n  ") +
		"\nIs one running (\"lictor run\")? " +
		"If its admin block has another address, name that by -admin or in $LICTOR_ADMIN."
}

// connect finds the running lictor. It returns a client for it, which the caller closes, and its status.
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
		// No TCP address: any local user could listen there.
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
		nobody.tried = append(nobody.tried, fmt.Sprintf("%s: %v", address, cause(err)))
	}
	return nil, nil, &nobody
}

// cause returns the system error in err, if there is one, without the address around it.
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

// fail reports err and returns the exit code for it.
func (a *asker) fail(err error) int {
	var nobody *errNobody
	var answer *admin.APIError
	hint := ""
	if errors.As(err, &answer) && answer.Code == http.StatusUnauthorized {
		hint = "\nName the file of the token by -token-file or in $LICTOR_ADMIN_TOKEN_FILE."
	}
	fmt.Fprintf(a.err, "lictor %s: %s%s\n", a.name, visible.Lines(err.Error()), hint)
	if errors.As(err, &nobody) {
		return exitNobody
	}
	return exitFailed
}

var errEnded = errors.New("lictor has ended")

// endedOr returns errEnded if err says that lictor has closed the connection, or does not listen any more where it has
// answered before. Otherwise it returns err.
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

// servicePath returns the path of a service in the API.
func servicePath(name string) string { return "/v1/services/" + url.PathEscape(name) }

// service asks for one service. If no service has that name, the error suggests a similar one.
func service(ctx context.Context, client *admin.Client, name string) (*admin.Service, error) {
	s := &admin.Service{}
	if name == "." || name == ".." { // which a path cannot have in it
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

// ago says how long ago t was, such as "3m ago". It returns "never" for nil.
func ago(now time.Time, t *time.Time) string {
	if t == nil {
		return "never"
	}
	return brief(now.Sub(*t)) + " ago"
}

// brief returns a duration in its largest unit, rounded down: 350ms, 12s, 5m, 3h, 9d. A negative one is 0ms.
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
