package discovery

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A pipe is a Consul that writes its answers byte by byte, over HTTP/1.1. The connections of a pipe have no buffers, so
// each byte that the server has written has reached the client.
type pipe struct {
	body func(query int, w io.Writer) // writes the body of the nth answer to a query; then the connection is closed

	mu      sync.Mutex
	queries int
}

func (p *pipe) transport() *http.Transport { return &http.Transport{DialContext: p.dial} }

func (p *pipe) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go p.serve(server)
	return client, nil
}

// serve answers one request.
func (p *pipe) serve(conn net.Conn) {
	defer conn.Close()
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Consul-Index: 20\r\n\r\n")
	if req.URL.Path == "/" {
		return
	}
	p.mu.Lock()
	p.queries++
	n := p.queries
	p.mu.Unlock()
	p.body(n, conn)
}

// An answer that arrives byte by byte ends at the deadline of the query.
func TestSlowDripEndsWithTheQuerysDeadline(t *testing.T) {
	for name, drip := range map[string]string{"in the list": " ",
		"in an entry": `{"Node":{"Node":"` + strings.Repeat("x", 5000)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var lasted time.Duration
				p := &pipe{body: func(n int, w io.Writer) {
					switch n {
					case 1:
						fmt.Fprint(w, entriesJSON("a 80"))
					case 2:
						begin := time.Now()
						_, err := fmt.Fprint(w, "[")
						for i := 0; err == nil; i++ {
							time.Sleep(time.Second)
							_, err = fmt.Fprint(w, drip[i%len(drip):i%len(drip)+1])
						}
						lasted = time.Since(begin)
					}
				}}
				r := startOver(t, p.transport(), ConsulOptions{Wait: 10 * time.Second})
				time.Sleep(time.Minute)
				synctest.Wait()
				// A query takes up to 11 s, plus a sixteenth of that, plus the grace.
				if most := 12*time.Second + consul.Grace; lasted == 0 || lasted > most+time.Second {
					t.Errorf("the drip lasted %v, want at most %v", lasted, most)
				}
				r.want(t, webA)
				r.log.wantOnce(t, "no answer within")
			})
		})
	}
}

// A flood writes endless answers, and counts the bytes that the client has taken.
type flood struct {
	mu               sync.Mutex
	now, most        int // bytes in all answers that the client still reads
	longest, answers int
}

func (f *flood) body(_ int, w io.Writer) {
	sent, chunk := 0, []byte(strings.Repeat("[{},", 8<<10))
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.now -= sent
		f.answers++
		f.longest = max(f.longest, sent)
	}()
	for {
		n, err := w.Write(chunk)
		sent += n
		f.mu.Lock()
		f.now += n
		f.most = max(f.most, f.now)
		f.mu.Unlock()
		if err != nil {
			return
		}
		time.Sleep(time.Millisecond) // let the other answers of this moment come first
	}
}

// With any number of endless answers, memory use stays limited.
func TestEndlessBodiesAreBoundedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const watches, buffers = 20, 64 << 10
		var o ConsulOptions
		for i := range watches {
			o.Watches = append(o.Watches, Watch{Service: fmt.Sprint("s", i)})
		}
		var f flood
		p := &pipe{body: f.body}
		r := startOver(t, p.transport(), o)
		time.Sleep(time.Second)
		r.stop()
		time.Sleep(time.Second) // the server's side ends
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.answers < watches {
			t.Errorf("%d answers were given up, want all %d at least", f.answers, watches)
		}
		limit := bodyLimit
		if f.longest > limit+buffers {
			t.Errorf("%d bytes were read of an answer, want at most %d", f.longest, limit)
		}
		if want := watches*(consul.SmallBody+buffers) + 2*limit; f.most > want {
			t.Errorf("%d bytes in memory at once, want at most %d", f.most, want)
		}
		r.want(t)
		for _, s := range r.consul.Snapshot() {
			if s.Errors == 0 {
				t.Errorf("%s: no error, after %d queries", s.Services, s.Queries)
			}
		}
	})
}
