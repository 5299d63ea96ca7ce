package consul

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// A StatusError is an answer with a status other than 200.
type StatusError struct {
	Code int
	Text string // the agent's text, in one line
}

func (e *StatusError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("consul answered %d %s", e.Code, http.StatusText(e.Code))
	}
	return fmt.Sprintf("consul answered %d: %s", e.Code, e.Text)
}

// A TimeoutError says that a request got no answer before its deadline. The client never returns it on its own; it is a
// cause for context.WithTimeoutCause.
type TimeoutError struct{ After time.Duration }

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("no answer within %v", e.After.Round(time.Millisecond))
}

// A RefusalError is an error for which IsRefusal returned true.
type RefusalError struct{ Err error }

func (e *RefusalError) Error() string { return e.Err.Error() }
func (e *RefusalError) Unwrap() error { return e.Err }

// IsRefusal reports whether the agent refused a connection because the client has too many. The agent sends 429 and
// closes the connection, and the client may notice either first. If refusing is true, there were refusals lately, so a
// broken connection counts as a refusal too.
func IsRefusal(err error, refusing bool) bool {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Code == http.StatusTooManyRequests && strings.Contains(status.Text, "concurrent connections")
	}
	return refusing && IsCutOff(err)
}

// IsNotFound reports whether the agent does not know what was asked for, and says so by the status 404.
func IsNotFound(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}

// IsCutOff reports whether a connection was established and then broke before an answer came.
func IsCutOff(err error) bool {
	var status *StatusError
	var op *net.OpError
	return !errors.Is(err, ErrMoved) && !errors.As(err, &status) && !(errors.As(err, &op) && op.Op == "dial")
}

// A Kind classifies errors. The kind determines how soon a query is repeated, and how the log describes the problem.
type Kind int

// The kinds of errors, ordered from those that end by themselves to those that need an operator.
const (
	Lost      Kind = iota // Consul cannot be reached, or cannot answer any query
	Unable                // Consul cannot answer this query, but it can answer others
	Throttled             // Consul asks for fewer connections or requests
	Denied                // the token is unknown, or lacks a right
	Refused               // Consul will never answer this query
)

// KindOf returns the kind of an error of Client. KindOf compares error texts, because Consul uses the status 500 for
// most errors.
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
	case strings.Contains(status.Text, "No path to datacenter"), strings.Contains(status.Text, "Query not found"),
		strings.Contains(status.Text, noConnect):
		return Unable
	case strings.Contains(status.Text, "ACL not found"), strings.Contains(status.Text, "Permission denied"):
		return Denied // the status is 500 if one server asked another
	}
	return Lost
}

// filterTrouble begins Consul's error text for a filter that it cannot parse, or that uses an unknown field. The status
// is 500.
const filterTrouble = "Failed to create boolean expression evaluator: "

const cutOff = "cut off"

// Cause returns a text that is equal for errors with the same cause, as far as that is known. The text of an error
// itself may contain ports that differ each time.
func Cause(err error) string {
	var status *StatusError
	var timeout *TimeoutError
	var certificate *tls.CertificateVerificationError
	var errno syscall.Errno
	switch {
	case errors.As(err, &status):
		return fmt.Sprint("status ", status.Code)
	case errors.As(err, &timeout), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.As(err, &certificate):
		return "certificate"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return cutOff // the client may notice either of them first
	case errors.As(err, &errno):
		return errno.Error()
	}
	return fmt.Sprintf("%T", err)
}

// IsNetwork reports whether err comes from the network, or from an agent that does not run. IsNetwork returns false if
// the agent answered or showed a certificate.
func IsNetwork(err error) bool {
	var status *StatusError
	var certificate *tls.CertificateVerificationError
	return !errors.As(err, &status) && !errors.As(err, &certificate)
}

// Reason returns the part of an error's text that helps the author of the query.
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

// OneLine returns text as one line of at most 300 printable characters. The text may be anything that a server sent.
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
