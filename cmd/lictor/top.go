package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

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

func (c *topCommand) Synopsis() string              { return "Show rates, connections and latencies, live" }
func (c *topCommand) AutocompleteFlags() predictors { return askCompletions(c.flags()) }
func (c *topCommand) AutocompleteArgs() predictor   { return nil }

func (c *topCommand) Help() string {
	return `Usage: lictor top [options]

  Shows the services of the running lictor, live: how many endpoints get
  clients, connections and sessions, rates, the mean latency of dials, failures,
  and why clients are refused. A service that refuses clients has the mark "!",
  and a degraded one "*". On a narrow terminal, columns are left out before
  names are shortened.

  The arrow keys select a service, Enter shows its endpoints, / filters by name,
  ? shows all keys, q quits. If lictor ends, top waits until one answers again.

Options:

` + askOptions + `  -interval TIME      Time between two updates. Default: 1s.
  -once               Print the rates over one interval as plain text, and end.
                      Lines are as wide as the terminal or $COLUMNS; without
                      both, nothing is cut.
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
	in, out, terminal := c.terminal()
	switch {
	case err != nil || c.json || c.once:
	case !terminal:
		err = errors.New("stdin and stdout are not a terminal: use -once")
	case isDumb():
		err = errors.New("$TERM is dumb: this terminal cannot be redrawn; use -once")
	}
	if err != nil {
		return c.usage("top", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	t := &top{ask: &c.asker, interval: c.interval}
	defer t.close()
	if err = t.look(ctx); err == nil {
		switch {
		case c.json:
			err = c.print(struct {
				Status   *admin.Status   `json:"status"`
				Services []admin.Service `json:"services"`
			}{t.now.status, t.before.Services})
		case c.once:
			err = t.once(ctx, c.out)
		default:
			err = t.live(ctx, in, out)
		}
	}
	if err != nil && ctx.Err() == nil {
		return c.fail(err)
	}
	return exitOK
}

func (c *topCommand) terminal() (in, out *os.File, ok bool) {
	in, out = readsTerminal(c.in), terminalOf(c.out)
	return in, out, in != nil && out != nil
}

// readsTerminal returns the terminal that r reads from, or nil if r does not read from one.
func readsTerminal(r io.Reader) *os.File {
	f, ok := r.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return f
}

// A top asks a running lictor at intervals and shows the rates between two answers.
type top struct {
	ask      *asker
	interval time.Duration
	client   *admin.Client         // nil until a lictor has answered, and after it has ended
	before   *admin.ServicesAnswer // the last answer
	now      topAnswer
}

// A topAnswer is what one look has found.
type topAnswer struct {
	status *admin.Status
	rows   []topRow
	news   string // about another process that answers, or why none does; "" if all is as before
	lost   bool   // no lictor answers; status and rows are those of the last answer
}

func (t *top) close() {
	if t.client != nil {
		t.client.Close()
		t.client = nil
	}
}

// look asks once and computes the rates since the previous answer. It looks for a running lictor if none has answered
// last.
func (t *top) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	status, services := &admin.Status{}, &admin.ServicesAnswer{}
	if t.client == nil {
		client, _, err := t.ask.connect(ctx)
		if err != nil {
			return err
		}
		t.client = client
	}
	err := t.client.Get(ctx, "/v1/status", status)
	if err == nil {
		err = t.client.Get(ctx, "/v1/services", services)
	}
	if err != nil {
		t.close()
		return endedOr(err)
	}
	old := t.now.status
	if old != nil && (old.PID != status.PID || !old.Started.Equal(status.Started)) {
		t.before = nil // the counters of another process are not comparable
	}
	t.now.status, t.now.rows, t.before = status, topRows(t.before, services), services
	return nil
}

// once prints the rates over one interval.
func (t *top) once(ctx context.Context, w io.Writer) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(t.interval):
	}
	if err := t.look(ctx); err != nil {
		return err
	}
	screen := topScreen{status: t.now.status, rows: t.now.rows, view: &topView{sort: 'a', open: map[string]bool{}}}
	for i := range screen.rows {
		screen.view.open[screen.rows[i].Name] = true
	}
	width := widthOf(w)
	lines := strings.Split(screen.frame(width, 0), "\r\n")
	lines = slices.Delete(lines, 2, 3) // the keys
	_, err := fmt.Fprintln(w, unadorned(strings.Join(lines, "\n")))
	return err
}

// follow looks at intervals and sends each answer, until ctx ends. If lictor has ended, follow says so, and goes on
// when one answers again.
func (t *top) follow(ctx context.Context, answers chan<- topAnswer) {
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	var lostAt time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		old := t.now.status
		err := t.look(ctx)
		a := t.now
		switch {
		case err != nil && lostAt.IsZero():
			lostAt = time.Now()
			fallthrough
		case err != nil:
			a.lost = true
			a.news = fmt.Sprintf("no answer since %s (%s); trying again", lostAt.Format(time.TimeOnly), firstLine(err))
		case old.PID != a.status.PID:
			a.news = fmt.Sprintf("process %d (lictor %s) answers instead of process %d", a.status.PID, a.status.Version,
				old.PID)
		case !lostAt.IsZero():
			a.news = fmt.Sprintf("process %d answers again", a.status.PID)
		}
		if err == nil {
			lostAt = time.Time{}
		}
		select {
		case answers <- a:
		case <-ctx.Done():
			return
		}
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// newsTime is how long news stay on the screen while lictor answers.
const newsTime = 10 * time.Second

// live draws frames until the user quits or ctx ends. Then it restores the terminal.
func (t *top) live(ctx context.Context, in, out *os.File) error {
	former, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return err
	}
	defer func() { _ = term.Restore(int(in.Fd()), former) }()
	fmt.Fprint(out, "\x1b[?1049h\x1b[?25l")       // alternate screen, no cursor
	defer fmt.Fprint(out, "\x1b[?25h\x1b[?1049l") // cursor, normal screen
	screen := topScreen{status: t.now.status, rows: t.now.rows, plain: !isTerminal(out),
		view: &topView{sort: 'a', open: map[string]bool{}}}
	ctx, cancel := context.WithCancel(ctx)
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	keys, answers := make(chan string), make(chan topAnswer)
	following.Go(func() { t.follow(ctx, answers) })
	go readKeys(ctx, in, keys)
	resized, ignore := resizes()
	defer ignore()
	var old <-chan time.Time // when the news are no longer news
	for {
		if err := screen.draw(out); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case <-old:
			screen.news, old = "", nil
		case a := <-answers:
			screen.status, screen.rows, screen.lost = a.status, a.rows, a.lost
			if a.news != "" {
				screen.news, old = a.news, nil
			}
			if a.news != "" && !a.lost {
				old = time.After(newsTime)
			}
		case key, ok := <-keys:
			if !ok || screen.view.press(key, screen.view.shown(screen.rows)) {
				return nil
			}
		}
	}
}

// draw draws a frame on the terminal.
func (s *topScreen) draw(out *os.File) error {
	width, height, err := term.GetSize(int(out.Fd()))
	if err != nil {
		return err
	}
	// Erase the rest of each row after its text.
	text := strings.ReplaceAll(s.frame(width, height), "\r\n", "\x1b[K\r\n")
	_, err = fmt.Fprintf(out, "\x1b[H%s\x1b[K\x1b[J", text)
	return err
}
