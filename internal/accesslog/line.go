package accesslog

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/internal/visible"
	"github.com/lictor-proxy/lictor/proxy"
)

// appendTime appends t in UTC as RFC 3339 with microseconds. Package time formats RFC 3339 without a fraction much
// faster than other layouts.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	b = t.AppendFormat(b, time.RFC3339)
	b = appendMicroseconds(append(b[:len(b)-len("Z")], '.'), t.Nanosecond()/1000)
	return append(b, 'Z')
}

// appendMicroseconds appends n with six digits.
func appendMicroseconds(b []byte, n int) []byte {
	for unit := 100_000; unit > 0; unit /= 10 {
		b = append(b, byte('0'+n/unit%10))
	}
	return b
}

// A formatter appends the line of a record to b. The formatter allocates only if a name needs quotes, if b is too
// small, or for a client certificate.
type formatter func(b []byte, r *proxy.AccessRecord) []byte

func (o *Options) formatter() formatter {
	if o.JSON {
		return appendJSON
	}
	return appendText
}

// appendJSON appends a record as one line of JSON. Durations are in seconds.
func appendJSON(b []byte, r *proxy.AccessRecord) []byte {
	b = append(b, `{"time":"`...)
	b = appendTime(b, r.Ended)
	b = append(b, `","service":`...)
	b = appendJSONString(b, r.Service)
	b = append(b, `,"protocol":"`...)
	b = append(b, r.Protocol.String()...)
	b = append(b, `","listener":`...)
	if r.Listener.Path != "" {
		b = appendJSONString(b, r.Listener.String())
	} else {
		b = append(r.Listener.AppendTo(append(b, '"')), '"')
	}
	b = append(b, `,"client":"`...)
	b = appendClient(b, r)
	b = append(b, '"')
	if r.TLS != nil {
		b = appendTLSJSON(b, r.TLS)
	}
	if r.Endpoint.ID != "" {
		b = append(b, `,"endpoint":`...)
		b = appendJSONString(b, r.Endpoint.ID)
		b = append(b, `,"address":`...)
		b = appendJSONAddress(b, r)
	}
	b = append(b, `,"connect":`...)
	b = appendSeconds(b, r.Connect, time.Nanosecond)
	b = append(b, `,"duration":`...)
	b = appendSeconds(b, r.Duration, time.Nanosecond)
	b = appendCount(b, `,"up":`, r.Up)
	b = appendCount(b, `,"down":`, r.Down)
	if r.Protocol == proxy.UDP {
		b = appendCount(b, `,"datagrams_up":`, r.DatagramsUp)
		b = appendCount(b, `,"datagrams_down":`, r.DatagramsDown)
	}
	b = append(b, `,"by":"`...)
	b = append(b, endedBy(r.Reason)...)
	b = append(b, `","end":"`...)
	b = append(b, r.Reason...)
	b = append(b, '"')
	if r.Refused != "" {
		b = append(b, `,"reason":"`...)
		b = append(b, r.Refused...)
		b = append(b, '"')
	}
	if r.Err != nil {
		b = append(b, `,"error":`...)
		b = appendJSONString(b, r.Err.Error())
	}
	return append(b, '}', '\n')
}

// appendText appends a record as one line of text (shown here as two):
//
//	2026-01-02T03:04:05.000000Z web 127.0.0.1:34567 -> node/web-1 10.0.0.1:80 connect=0.000312 duration=1.204000
//	up=120 down=5311 by=client end="client closed" protocol=tcp listener=127.0.0.1:9000
//
// The line of a UDP session also has datagrams_up and datagrams_down. Behind listener comes what is known of a client
// that speaks TLS. A line ends with reason or error if there is one.
// A missing endpoint is "-". A name is quoted if it would otherwise look like several words.
func appendText(b []byte, r *proxy.AccessRecord) []byte {
	b = appendTime(b, r.Ended)
	b = append(b, ' ')
	b = appendWord(b, r.Service)
	b = append(b, ' ')
	b = appendClient(b, r)
	b = append(b, " -> "...)
	b = appendWord(b, r.Endpoint.ID)
	b = append(b, ' ')
	if r.Endpoint.ID == "" {
		b = append(b, '-')
	} else {
		b = appendAddress(b, r)
	}
	b = append(b, " connect="...)
	b = appendSeconds(b, r.Connect, time.Microsecond)
	b = append(b, " duration="...)
	b = appendSeconds(b, r.Duration, time.Microsecond)
	b = appendCount(b, " up=", r.Up)
	b = appendCount(b, " down=", r.Down)
	if r.Protocol == proxy.UDP {
		b = appendCount(b, " datagrams_up=", r.DatagramsUp)
		b = appendCount(b, " datagrams_down=", r.DatagramsDown)
	}
	b = append(b, " by="...)
	b = append(b, endedBy(r.Reason)...)
	b = append(b, ` end="`...)
	b = append(b, r.Reason...)
	b = append(b, `" protocol=`...)
	b = append(b, r.Protocol.String()...)
	b = append(b, " listener="...)
	if r.Listener.Path != "" {
		b = appendWord(b, r.Listener.String())
	} else {
		b = r.Listener.AppendTo(b)
	}
	if r.TLS != nil {
		b = appendTLSText(b, r.TLS)
	}
	if r.Refused != "" {
		b = append(b, " reason="...)
		b = append(b, r.Refused...)
	}
	if r.Err != nil {
		b = append(b, " error="...)
		b = strconv.AppendQuote(b, r.Err.Error())
	}
	return append(b, '\n')
}

// endedBy returns which side ended a connection: "client", "endpoint" or "lictor".
func endedBy(reason string) string {
	switch {
	case reason == proxy.ReasonEndpointLeft: // Lictor ended the connection
	case strings.HasPrefix(reason, "client"):
		return "client"
	case strings.HasPrefix(reason, "endpoint"), reason == proxy.ReasonDenied:
		return "endpoint"
	}
	return "lictor"
}

// hasPlainAddress reports whether the endpoint's address needs no quotes.
func hasPlainAddress(r *proxy.AccessRecord) bool {
	return r.Endpoint.Host == "" && r.Endpoint.Path == "" && r.Endpoint.Addr.Addr().Zone() == ""
}

func appendAddress(b []byte, r *proxy.AccessRecord) []byte {
	if hasPlainAddress(r) {
		return r.Endpoint.Addr.AppendTo(b)
	}
	return appendWord(b, r.Endpoint.Address())
}

func appendJSONAddress(b []byte, r *proxy.AccessRecord) []byte {
	if hasPlainAddress(r) {
		return append(r.Endpoint.Addr.AppendTo(append(b, '"')), '"')
	}
	return appendJSONString(b, r.Endpoint.Address())
}

func appendCount(b []byte, name string, n int64) []byte {
	return strconv.AppendInt(append(b, name...), n, 10)
}

// appendSeconds appends d in seconds, rounded to unit. Microseconds have all six digits; nanoseconds have no trailing
// zeros.
func appendSeconds(b []byte, d, unit time.Duration) []byte {
	d = d.Round(unit)
	if d < 0 {
		b, d = append(b, '-'), -d
	}
	b = strconv.AppendInt(b, int64(d/time.Second), 10)
	var digits [9]byte
	rest := int64(d % time.Second)
	for i := range digits {
		digits[len(digits)-1-i] = byte('0' + rest%10)
		rest /= 10
	}
	if unit == time.Microsecond {
		return append(append(b, '.'), digits[:6]...)
	}
	n := len(digits)
	for n > 0 && digits[n-1] == '0' {
		n--
	}
	if n == 0 {
		return b
	}
	return append(append(b, '.'), digits[:n]...)
}

// appendJSONString appends s as a JSON string.
func appendJSONString(b []byte, s string) []byte {
	if !isPlain(s) {
		quoted, _ := json.Marshal(s) // marshalling a string cannot fail
		return append(b, visible.JSON(quoted)...)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// isPlain reports whether s is printable ASCII without characters that are special in JSON or HTML.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// appendWord appends s, or "-" if s is empty. appendWord quotes s if s would look like several words.
func appendWord(b []byte, s string) []byte {
	switch {
	case s == "":
		return append(b, '-')
	case isPlain(s) && strings.IndexByte(s, ' ') < 0 && strings.IndexByte(s, '=') < 0:
		return append(b, s...)
	}
	if q := strconv.Quote(s); len(q) > len(s)+2 || strings.ContainsAny(s, " =") {
		return append(b, q...)
	}
	return append(b, s...)
}

// appendClient appends the client's address, or the word for a client of a Unix socket.
func appendClient(b []byte, r *proxy.AccessRecord) []byte {
	if !r.Client.IsValid() {
		return append(b, proxy.UnixClient...)
	}
	return r.Client.AppendTo(b)
}
