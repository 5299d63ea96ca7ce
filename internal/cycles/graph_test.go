package cycles

import (
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/lb"
)

// linksOf parses "a>b" as a link over TCP, and "a>b/udp" as a link over UDP.
func linksOf(text string) (links []Link) {
	for _, one := range strings.Fields(text) {
		one, udp := strings.CutSuffix(one, "/udp")
		l := Link{}
		if l.From, l.To, _ = strings.Cut(one, ">"); udp {
			l.Network = lb.UDP
		}
		links = append(links, l)
	}
	return links
}

func TestClosing(t *testing.T) {
	for _, tt := range []struct{ name, links, want string }{
		{"nothing", "", ""},
		{"a chain", "a>b b>c c>d", ""},
		{"a chain, last link first", "c>d b>c a>b", ""},
		{"itself", "a>a", "a>a: a a"},
		{"two services", "a>b b>a", "b>a: b a b"},
		{"two services, the other one first", "b>a a>b", "a>b: a b a"},
		{"three services", "a>b b>c c>a", "c>a: c a b c"},
		{"the shortest way is told", "a>b b>c c>d a>d d>a", "d>a: d a d"},
		{"two ways to one service are no cycle", "a>b a>c b>d c>d", ""},
		{"one that closes two cycles", "a>b a>c b>d c>d d>a", "d>a: d a b d"},
		{"what is left out leads nowhere", "a>b b>a c>b b>c", "b>a: b a b; b>c: b c b"},
		{"what is left out does not make others close", "a>b b>a c>a b>c", "b>a: b a b; b>c: b c a b"},
		{"a service off the cycle", "x>a a>b b>a a>y", "b>a: b a b"},
		{"the protocols are apart", "a>b b>a/udp", ""},
		{"over udp too", "a>b/udp b>a/udp", "b>a/udp: b a b"},
		{"the same again", "a>b a>b b>a b>a", "b>a: b a b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			links := linksOf(tt.links)
			closed := closing(links)
			var got []string
			for _, l := range links {
				path, is := closed[l]
				if !is {
					continue
				}
				delete(closed, l)
				name := l.From + ">" + l.To
				if l.Network == lb.UDP {
					name += "/udp"
				}
				got = append(got, name+": "+strings.Join(path, " "))
			}
			if text := strings.Join(got, "; "); text != tt.want || len(closed) > 0 {
				t.Errorf("got %q and %v, want %q", text, closed, tt.want)
			}
		})
	}
}
