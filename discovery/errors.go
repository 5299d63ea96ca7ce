package discovery

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// A statusError is an answer with a status other than 200.
type statusError struct {
	Code int
	Text string
}

func (e *statusError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("consul answered %d %s", e.Code, http.StatusText(e.Code))
	}
	return fmt.Sprintf("consul answered %d: %s", e.Code, e.Text)
}

// A timeoutError means that a query had no answer within its deadline.
type timeoutError struct{ After time.Duration }

func (e *timeoutError) Error() string {
	return fmt.Sprintf("no answer within %v", e.After.Round(time.Millisecond))
}

// A refusalError is of a connection that the agent refused because there are too many.
type refusalError struct{ Err error }

func (e *refusalError) Error() string { return e.Err.Error() }
func (e *refusalError) Unwrap() error { return e.Err }

// isRefusal tells whether err is such a refusal. An agent with too many connections sends 429 and closes, and which of the two is
// noticed first is a matter of luck: while there are refusals, connections that break count as such too.
func isRefusal(err error, refusing bool) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.Code == http.StatusTooManyRequests && strings.Contains(status.Text, "concurrent connections")
	}
	return refusing && isCutOff(err)
}

// isCutOff tells whether err is of a connection that was made and then closed on us. An agent with too many connections does that:
// it sends 429 and closes, and which of the two is noticed first is a matter of luck.
func isCutOff(err error) bool {
	var status *statusError
	var op *net.OpError
	return !errors.As(err, &status) && !(errors.As(err, &op) && op.Op == "dial")
}

// A kind of error decides how soon a query is repeated, and which log line speaks of it.
type kind int

const (
	lost      kind = iota // Consul cannot be reached, or is not able to answer anybody
	unable                // Consul cannot answer this query now, but others
	throttled             // Consul wants fewer connections or requests
	denied                // the token does not permit the query, or is none
	refused               // the query will never be answered
)

// kindOf classifies an error of client. Consul reports nearly everything as 500, so words have to be looked at.
func kindOf(err error) kind {
	var status *statusError
	var refusal *refusalError
	var filtered *missingRightError
	var peering *peeringError
	switch {
	case errors.As(err, &refusal):
		return throttled
	case errors.As(err, &filtered):
		return denied
	case errors.As(err, &peering):
		return unable
	case !errors.As(err, &status):
		return lost
	}
	switch status.Code {
	case http.StatusBadRequest:
		return refused
	case http.StatusUnauthorized, http.StatusForbidden:
		return denied
	case http.StatusTooManyRequests:
		return throttled
	}
	switch {
	case strings.Contains(status.Text, filterTrouble):
		return refused
	case strings.Contains(status.Text, "No path to datacenter"), strings.Contains(status.Text, "Query not found"):
		return unable
	case strings.Contains(status.Text, "ACL not found"), strings.Contains(status.Text, "Permission denied"):
		return denied // a server's refusal reaches us as 500 if it has come through another server
	}
	return lost
}

// filterTrouble is how Consul begins its complaint, with status 500, about a filter that it cannot parse or that names an unknown field.
const filterTrouble = "Failed to create boolean expression evaluator: "

// reason is what is worth reading in err for whoever wrote the query.
func reason(err error) string {
	var status *statusError
	if !errors.As(err, &status) {
		return err.Error()
	}
	if _, after, found := strings.Cut(status.Text, filterTrouble); found {
		return "filter: " + after
	}
	return status.Text
}

// oneLine makes one line of at most 300 characters out of whatever a server sent.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > 300 {
		return string(runes[:300]) + "..."
	}
	return text
}
