package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/posener/complete"
	"golang.org/x/term"

	"github.com/lictor-proxy/lictor/internal/admin"
)

type topCommand struct {
	asker
	once     bool
	interval time.Duration
}

func newTopCommand(c console) *topCommand {
	return &topCommand{asker: asker{console: c, name: "top"}}
}

func (c *topCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("top", flag.ContinueOnError)
	c.askFlags(f)
	f.BoolVar(&c.once, "once", false, "")
	f.DurationVar(&c.interval, "interval", time.Second, "")
	return f
}

func (c *topCommand) Synopsis() string                     { return "Show rates, connections and latencies, live" }
func (c *topCommand) AutocompleteFlags() complete.Flags    { return askCompletions(c.flags()) }
func (c *topCommand) AutocompleteArgs() complete.Predictor { return complete.PredictNothing }

func (c *topCommand) Help() string {
	return `Usage: lictor top [options]

  Shows the services of the running lictor, live: how many endpoints get
  clients, connections and sessions, rates, the mean latency of dials, and
  failures. Letter keys change the order, the arrow keys select a service, Enter
  shows its endpoints, q quits.

Options:

` + askOptions + `  -interval TIME      Time between two updates. Default: 1s.
  -once               Print the rates over one interval as plain text, and end.
  -json               Print the counters once, as "lictor status -json" does.
                      Rates are left to the reader.

Exit codes:

  0    The command has ended, by a key or after -once.
  1    Lictor has ended or refuses to answer.
  2    Wrong usage.
  3    No lictor answers.

Examples:

    $ lictor top
    $ lictor top -once -interval 10s
`
}

func (c *topCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	switch {
	case err != nil:
	case len(rest) > 0:
		err = fmt.Errorf("unexpected argument %q", rest[0])
	case c.interval < 100*time.Millisecond:
		err = fmt.Errorf("-interval %v is too short: the minimum is 100ms", c.interval)
	}
	if err != nil {
		return c.usage("top", err)
	}
	if c.json {
		s := &statusCommand{asker: c.asker}
		return s.Run([]string{"-json", "-admin", c.address, "-token-file", c.tokenFile})
	}
	in, out, terminal := c.terminal()
	if !terminal && !c.once {
		return c.usage("top", errors.New("stdin and stdout are not a terminal: use -once"))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	client, status, err := c.connect(ctx)
	if err != nil {
		return c.fail(err)
	}
	defer client.Close()
	t := &top{client: client, status: status, interval: c.interval, view: topView{sort: 'a', open: map[string]bool{}}}
	if c.once {
		err = t.once(ctx, c.out)
	} else {
		err = t.live(ctx, in, out)
	}
	if err != nil && ctx.Err() == nil {
		return c.fail(err)
	}
	return exitOK
}

func (c *topCommand) terminal() (in, out *os.File, ok bool) {
	in, is := c.in.(*os.File)
	out, too := c.out.(*os.File)
	return in, out, is && too && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd()))
}

// A top asks a running lictor at intervals and shows the rates between two answers.
type top struct {
	client   *admin.Client
	status   *admin.Status
	interval time.Duration
	before   *admin.ServicesAnswer
	rows     []topRow
	view     topView
}

// look asks once and computes the rates since the previous answer.
func (t *top) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	status, now := &admin.Status{}, &admin.ServicesAnswer{}
	if err := t.client.Get(ctx, "/v1/status", status); err != nil {
		return endedOr(err)
	}
	if err := t.client.Get(ctx, "/v1/services", now); err != nil {
		return endedOr(err)
	}
	t.status, t.rows, t.before = status, topRows(t.before, now), now
	return nil
}

func (t *top) once(ctx context.Context, w io.Writer) error {
	if err := t.look(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(t.interval):
	}
	if err := t.look(ctx); err != nil {
		return err
	}
	for i := range t.rows {
		t.view.open[t.rows[i].Name] = true
	}
	_, err := fmt.Fprintln(w, unadorned(frame(t.status, t.rows, &t.view, 160, 0)))
	return err
}

// live draws frames until the user quits or ctx ends. Then it restores the terminal.
func (t *top) live(ctx context.Context, in, out *os.File) error {
	former, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return err
	}
	defer func() { _ = term.Restore(int(in.Fd()), former) }()
	fmt.Fprint(out, "\x1b[?1049h\x1b[?25l")       // alternate screen, no cursor
	defer fmt.Fprint(out, "\x1b[?25h\x1b[?1049l") // cursor, normal screen
	keys := make(chan string)
	go readKeys(ctx, in, keys)
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	if err := t.look(ctx); err != nil {
		return err
	}
	for {
		width, height, err := term.GetSize(int(out.Fd()))
		if err != nil {
			return err
		}
		// Erase the rest of each row after its text.
		screen := strings.ReplaceAll(frame(t.status, t.rows, &t.view, width, height), "\r\n", "\x1b[K\r\n")
		if _, err := fmt.Fprintf(out, "\x1b[H%s\x1b[K\x1b[J", screen); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := t.look(ctx); err != nil {
				return err
			}
		case key, ok := <-keys:
			if !ok || t.view.press(key, t.rows) {
				return nil
			}
		}
	}
}

// readKeys sends the typed keys until the input or ctx ends. A pending read cannot be interrupted; it ends with the
// process.
func readKeys(ctx context.Context, in io.Reader, keys chan<- string) {
	defer close(keys)
	buf := make([]byte, 64)
	for {
		n, err := in.Read(buf)
		if err != nil {
			return
		}
		for _, key := range splitKeys(string(buf[:n])) {
			select {
			case keys <- key:
			case <-ctx.Done():
				return
			}
		}
	}
}

// splitKeys splits the input of one read into keys. A key is a character or an escape sequence: ESC [ ... letter, or
// ESC O letter.
func splitKeys(s string) (keys []string) {
	for s != "" {
		n := 1
		if strings.HasPrefix(s, "\x1b[") || strings.HasPrefix(s, "\x1bO") {
			for n = 2; n < len(s) && (s[n] < '@' || s[n] > '~'); n++ {
			}
			n = min(n+1, len(s))
		}
		keys = append(keys, s[:n])
		s = s[n:]
	}
	return keys
}

// press applies a key to the view. It returns true if the key quits.
func (v *topView) press(key string, rows []topRow) (end bool) {
	at := -1
	for i := range rows {
		if rows[i].Name == v.selected {
			at = i
		}
	}
	move := func(to int) {
		if len(rows) > 0 {
			v.selected = rows[min(max(to, 0), len(rows)-1)].Name
		}
	}
	switch key {
	case "q", "\x03", "\x1b":
		return true
	case "\x1b[A", "\x1bOA", "k":
		move(at - 1)
	case "\x1b[B", "\x1bOB", "j":
		move(at + 1)
	case "\x1b[5~":
		move(at - 20)
	case "\x1b[6~":
		move(at + 20)
	case "\r", " ":
		if at >= 0 {
			v.open[v.selected] = !v.open[v.selected]
		}
	default:
		for _, s := range topSorts() {
			if key == string(s.key) {
				v.sort = s.key
			}
		}
	}
	return false
}
