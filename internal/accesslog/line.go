package accesslog

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/proxy"
)

// An entry is a record as JSON. Times are in seconds.
type entry struct {
	Time       time.Time `json:"time"`
	Service    string    `json:"service"`
	Protocol   string    `json:"protocol"`
	Client     string    `json:"client"`
	Endpoint   string    `json:"endpoint,omitempty"`
	Address    string    `json:"address,omitempty"`
	Connect    float64   `json:"connect"`
	Duration   float64   `json:"duration"`
	Up         int64     `json:"up"`
	Down       int64     `json:"down"`
	*datagrams           // nil: TCP
	By         string    `json:"by"`
	End        string    `json:"end"`
}

// datagrams are those of a session.
type datagrams struct {
	Up   int64 `json:"datagrams_up"`
	Down int64 `json:"datagrams_down"`
}

func entryOf(r *proxy.AccessRecord) entry {
	l := entry{
		Time: r.Ended.UTC().Truncate(time.Microsecond), Service: r.Service, Protocol: r.Protocol.String(),
		Client: r.Client.String(), Connect: r.Connect.Seconds(), Duration: r.Duration.Seconds(),
		Up: r.Up, Down: r.Down, By: endedBy(r.Reason), End: r.Reason,
	}
	if r.Protocol == proxy.UDP {
		l.datagrams = &datagrams{Up: r.DatagramsUp, Down: r.DatagramsDown}
	}
	if r.Endpoint.ID != "" {
		l.Endpoint, l.Address = r.Endpoint.ID, r.Endpoint.Address()
	}
	return l
}

// endedBy says who ended a connection.
func endedBy(reason string) string {
	switch {
	case reason == proxy.ReasonEndpointLeft: // and Lictor drew the conclusion
	case strings.HasPrefix(reason, "client"):
		return "client"
	case strings.HasPrefix(reason, "endpoint"):
		return "endpoint"
	}
	return "lictor"
}

func formatJSON(r *proxy.AccessRecord) []byte {
	line, _ := json.Marshal(entryOf(r)) // plain data: it cannot fail
	return append(line, '\n')
}

// formatText returns a record as one line of text (here it is two):
//
//	2026-01-02T03:04:05.000000Z web 127.0.0.1:34567 -> node/web-1 10.0.0.1:80
//	connect=0.000312 duration=1.204000 up=120 down=5311 by=client end="client closed"
//
// A session has datagrams_up and datagrams_down too. What is not there is "-". A name that would look like more than
// one word is in quotes.
func formatText(r *proxy.AccessRecord) []byte {
	l := entryOf(r)
	line := fmt.Appendf(nil, "%s %s %s -> %s %s connect=%.6f duration=%.6f up=%d down=%d",
		l.Time.Format("2006-01-02T15:04:05.000000Z"), word(l.Service),
		l.Client, word(l.Endpoint), word(l.Address), l.Connect, l.Duration, l.Up, l.Down)
	if d := l.datagrams; d != nil {
		line = fmt.Appendf(line, " datagrams_up=%d datagrams_down=%d", d.Up, d.Down)
	}
	return fmt.Appendf(line, " by=%s end=%q\n", l.By, l.End)
}

func word(s string) string {
	if s == "" {
		return "-"
	}
	if q := strconv.Quote(s); len(q) > len(s)+2 || strings.ContainsAny(s, " =") {
		return q
	}
	return s
}
