package discovery

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// largeAnswer returns an answer with n instances, each as long as an instance of Consul. The instance with the number
// changed has an unusual check output, and the next instance has an unusual port.
func largeAnswer(n, changed int) string {
	var b strings.Builder
	b.WriteString("[")
	for i := range n {
		if i > 0 {
			b.WriteString(",")
		}
		port, output := 8080, "HTTP GET http://10.0.0.1:8080/health: 200 OK Output: up for 12345 s"
		if i == changed {
			output += fmt.Sprint(changed)
		}
		if i == changed+1 {
			port++
		}
		fmt.Fprintf(&b, `{"Node":{"ID":"8a6f1e0c-3d5a-4a54-9d5e-%012d","Node":"node-%05d.example.internal",`, i, i)
		fmt.Fprintf(&b, `"Address":"10.%d.%d.1","Datacenter":"dc1","TaggedAddresses":{"lan":"10.0.0.1",`, i>>8, i&255)
		b.WriteString(`"lan_ipv4":"10.0.0.1","wan":"10.0.0.1","wan_ipv4":"10.0.0.1"},`)
		b.WriteString(`"Meta":{"consul-network-segment":"","consul-version":"1.22.7",`)
		fmt.Fprintf(&b, `"zone":"eu-central-1a"},"CreateIndex":%d,"ModifyIndex":%d},`, i+100, i+200)
		fmt.Fprintf(&b, `"Service":{"ID":"web-%05d","Service":"web","Tags":["v2","primary","zone-a"],`, i)
		fmt.Fprintf(&b, `"Address":"10.%d.%d.1",`, i>>8, i&255)
		b.WriteString(`"Meta":{"version":"2.4.1","build":"a1b2c3d4","owner":"team-web"},`)
		fmt.Fprintf(&b, `"Port":%d,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,`, port)
		b.WriteString(`"Proxy":{"Mode":"","MeshGateway":{},"Expose":{}},"Connect":{},"PeerName":"",`)
		fmt.Fprintf(&b, `"CreateIndex":%d,`, i+100)
		fmt.Fprintf(&b, `"ModifyIndex":%d},"Checks":[`, i+300)
		for c, id := range []string{"serfHealth", fmt.Sprintf("service:web-%05d", i)} {
			if c > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, `{"Node":"node-%05d.example.internal","CheckID":%q,"Name":"Service 'web' check",`, i, id)
			fmt.Fprintf(&b, `"Status":"passing","Notes":"","Output":%q,"ServiceID":"web-%05d",`, output, i)
			b.WriteString(`"ServiceName":"web",`)
			fmt.Fprintf(&b, `"ServiceTags":["v2","primary","zone-a"],"Type":"http","Interval":"10s","Timeout":"1s",`)
			fmt.Fprintf(&b, `"ExposedPort":0,"Definition":{},"CreateIndex":%d,"ModifyIndex":%d}`, i+100, i+400)
		}
		b.WriteString("]}")
	}
	b.WriteString("]")
	return b.String()
}

// newLargeWatch returns a watch of "web" that sends its sets to sink.
func newLargeWatch(t testing.TB, sink Sink) *watch {
	t.Helper()
	c, err := NewConsul(ConsulOptions{Watches: []Watch{{Service: "web"}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	c.ctx, c.sink, c.epoch = ctx, sink, newEpoch(nil)
	for _, s := range c.selectors {
		s.begin()
	}
	return c.watches[0]
}

// takeBody passes an answer with this body to w.
func (w *watch) takeBody(body string, index uint64) error {
	entries, err := decode([]byte(body), &Query{}, w.poller.parser)
	if err != nil {
		return err
	}
	a := answer{index: index, entries: entries, received: time.Now()}
	w.take(context.Background(), question{}, &a, nil)
	return nil
}

// manyTiny returns n instances. The instance with the number changed has a different port.
func manyTiny(n, changed int) (instances []string) {
	for i := range n {
		port := 1000 + i
		if i == changed {
			port = 50000 + changed
		}
		instances = append(instances, fmt.Sprintf("instance-%d %d", i, port))
	}
	return instances
}

// If each answer is new, a service with many instances gets fewer queries than one with few instances.
func TestLongAnswersAreDamped(t *testing.T) {
	for _, tt := range []struct {
		name        string
		instances   int
		least, most int // queries in 10 seconds
	}{
		{"few", 10, 400, 900},
		{"many", 3000, 120, 280},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{}
				now := 0
				f.always = func(req *http.Request) (*http.Response, error) {
					now++
					return after(10*time.Millisecond, ok(now+10, manyTiny(tt.instances, now%tt.instances)...))(req)
				}
				r := start(t, f, ConsulOptions{Wait: 50 * time.Second})
				time.Sleep(10 * time.Second)
				n := len(f.asks())
				t.Logf("%d queries", n)
				if n < tt.least || n > tt.most {
					t.Errorf("%d queries in 10 s, want %d to %d", n, tt.least, tt.most)
				}
				r.stop()
			})
		})
	}
}

type nowhere struct{}

func (nowhere) OnUpdate([]lb.Endpoints) {}

// BenchmarkAnswer measures the cost of an answer with thousands of instances, of which one has changed.
func BenchmarkAnswer(b *testing.B) {
	for _, n := range []int{5000} {
		var bodies []string
		for i := range 2 {
			bodies = append(bodies, largeAnswer(n, i*10))
		}
		b.Logf("%d bytes", len(bodies[0]))
		for _, into := range []struct {
			name string
			sink Sink
		}{{"nowhere", nowhere{}}, {"balancer", lb.NewRoundRobin()}} {
			b.Run(fmt.Sprintf("%d/%s", n, into.name), func(b *testing.B) {
				w := newLargeWatch(b, into.sink)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if err := w.takeBody(bodies[i%2], uint64(i+10)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run(fmt.Sprintf("%d/read", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := io.ReadAll(strings.NewReader(bodies[i%2])); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
