package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// A topView is the state that keys change.
type topView struct {
	sort     byte   // key of a topSort
	selected string // name of the selected service
	open     map[string]bool
	first    int  // index of the first line on the screen
	page     int  // number of lines on the screen
	follow   bool // the next frame must show the selected service

	help     bool   // show the keys instead of the services
	filter   string // show only services with this in their name
	typing   bool   // keys extend the filter
	problems bool   // show only services that are not fine
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
		_, n := utf8.DecodeRuneInString(s)
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

const (
	keyEscape = "\x1b"
	keyCtrlC  = "\x03"
	keyCtrlU  = "\x15"
	keyEnter  = "\r"
)

// press applies a key to the view. The rows must be those that v.shown has returned. press returns true if the key
// quits.
func (v *topView) press(key string, rows []topRow) (end bool) {
	switch {
	case key == keyCtrlC:
		return true
	case v.help: // any key closes the help
		v.help = false
		return key == "q"
	case v.typing:
		v.typeFilter(key)
		return false
	}
	switch key {
	case "q":
		return true
	case "?", "h":
		v.help = true
	case "/":
		v.typing = true
	case keyEscape:
		v.selected, v.filter, v.problems = "", "", false
	case "p":
		v.problems, v.first = !v.problems, 0
	case keyEnter, " ":
		if slices.ContainsFunc(rows, func(r topRow) bool { return r.Name == v.selected }) {
			v.open[v.selected] = !v.open[v.selected]
			v.follow = true
		}
	default:
		v.move(key, rows)
		for _, s := range topSorts() {
			if key == string(s.key) { // what comes first now must be visible
				v.sort, v.first, v.selected = s.key, 0, ""
			}
		}
	}
	return false
}

// move applies a key that selects another row.
func (v *topView) move(key string, rows []topRow) {
	at := slices.IndexFunc(rows, func(r topRow) bool { return r.Name == v.selected })
	page := max(v.page-1, 1)
	switch key {
	case "\x1b[A", "\x1bOA", "k":
		at--
	case "\x1b[B", "\x1bOB", "j":
		at++
	case "\x1b[5~":
		at -= page
	case "\x1b[6~":
		at += page
	case "\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~", "g":
		at = 0
	case "\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~", "G":
		at = len(rows) - 1
	default:
		return
	}
	if len(rows) > 0 {
		v.selected, v.follow = rows[min(max(at, 0), len(rows)-1)].Name, true
	}
}

// typeFilter applies a key to the filter.
func (v *topView) typeFilter(key string) {
	v.first = 0
	switch key {
	case keyEnter:
		v.typing = false
	case keyEscape:
		v.typing, v.filter = false, ""
	case keyCtrlU:
		v.filter = ""
	case "\x7f", "\b":
		_, n := utf8.DecodeLastRuneInString(v.filter)
		v.filter = v.filter[:len(v.filter)-n]
	default:
		if visible.Text(key) == key && len(v.filter) < 64 {
			v.filter += key
		}
	}
}

// shown returns the rows that the filter lets through, sorted.
func (v *topView) shown(all []topRow) (rows []topRow) {
	for i := range all {
		if !strings.Contains(strings.ToLower(all[i].Name), strings.ToLower(v.filter)) ||
			v.problems && all[i].State == admin.StateFine {
			continue
		}
		rows = append(rows, all[i])
	}
	sortTop(rows, v.sort)
	return rows
}

// topHelp returns the lines that explain the keys and the marks.
func topHelp() []string {
	orders := "order  "
	for _, s := range topSorts() {
		orders += fmt.Sprintf(" %c %s", s.key, s.name)
	}
	return append([]string{orders}, strings.Split(`select  arrows, j, k, PgUp, PgDn, Home, End
Enter   show or hide the endpoints and the reasons of the selected service
/       show only services with a text in their name; Enter ends the text
p       show only services that are not fine, or all
Esc     show all services again, and select none
q       quit

!       the service refuses clients, and NOTE says why
*       the service is degraded: it serves clients, but needs attention

Rates are per second since the last update, REFUSED/S over ten seconds.
LATENCY is the mean time of a dial. FAILS/S counts failed dials and dropped
datagrams.

Any key closes this help.`, "\n")...)
}
