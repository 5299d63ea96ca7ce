package consul

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// A StatusError is an answer with a status other than 200.
type StatusError struct {
	Code int
	Text string
}

func (e *StatusError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("consul answered %d %s", e.Code, http.StatusText(e.Code))
	}
	return fmt.Sprintf("consul answered %d: %s", e.Code, e.Text)
}

// A TimeoutError means that a query had no answer within its deadline.
type TimeoutError struct{ After time.Duration }

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("no answer within %v", e.After.Round(time.Millisecond))
}

// A RefusalError is of a connection that the agent refused because there are too many.
type RefusalError struct{ Err error }

func (e *RefusalError) Error() string { return e.Err.Error() }
func (e *RefusalError) Unwrap() error { return e.Err }

// IsRefusal tells whether err is such a refusal. An agent with too many connections sends 429 and closes, and which of the two is
// noticed first is a matter of luck: while there are refusals, connections that break count as such too.
func IsRefusal(err error, refusing bool) bool {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Code == http.StatusTooManyRequests && strings.Contains(status.Text, "concurrent connections")
	}
	return refusing && IsCutOff(err)
}

// IsCutOff tells whether err is of a connection that was made and then closed on us. An agent with too many connections does that:
// it sends 429 and closes, and which of the two is noticed first is a matter of luck.
func IsCutOff(err error) bool {
	var status *StatusError
	var op *net.OpError
	return !errors.As(err, &status) && !(errors.As(err, &op) && op.Op == "dial")
}

// A Kind of error decides how soon a query is repeated, and which log line speaks of it.
type Kind int

const (
	Lost      Kind = iota // Consul cannot be reached, or is not able to answer anybody
	Unable                // Consul cannot answer this query now, but others
	Throttled             // Consul wants fewer connections or requests
	Denied                // the token does not permit the query, or is none
	Refused               // the query will never be answered
)

// KindOf classifies an error of Client. Consul reports nearly everything as 500, so words have to be looked at.
func KindOf(err error) Kind {
	var status *StatusError
	var refusal *RefusalError
	var filtered *MissingRightError
	var peering *PeeringError
	switch {
	case errors.As(err, &refusal):
		return Throttled
	case errors.As(err, &filtered):
		return Denied
	case errors.As(err, &peering):
		return Unable
	case !errors.As(err, &status):
		return Lost
	}
	switch status.Code {
	case http.StatusBadRequest:
		return Refused
	case http.StatusUnauthorized, http.StatusForbidden:
		return Denied
	case http.StatusTooManyRequests:
		return Throttled
	}
	switch {
	case strings.Contains(status.Text, filterTrouble):
		return Refused
	case strings.Contains(status.Text, "No path to datacenter"), strings.Contains(status.Text, "Query not found"):
		return Unable
	case strings.Contains(status.Text, "ACL not found"), strings.Contains(status.Text, "Permission denied"):
		return Denied // a server's refusal reaches us as 500 if it has come through another server
	}
	return Lost
}

// filterTrouble is how Consul begins its complaint, with status 500, about a filter that it cannot parse or that names an unknown field.
const filterTrouble = "Failed to create boolean expression evaluator: "

// Reason is what is worth reading in err for whoever wrote the query.
func Reason(err error) string {
	var status *StatusError
	if !errors.As(err, &status) {
		return err.Error()
	}
	if _, after, found := strings.Cut(status.Text, filterTrouble); found {
		return "filter: " + after
	}
	return status.Text
}

// OneLine makes one line of at most 300 characters out of whatever a server sent.
func OneLine(text string) string {
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
