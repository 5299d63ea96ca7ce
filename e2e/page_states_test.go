//go:build unix

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// These are expressions: the question before a drain, and the names of the services that are shown.
const (
	dialog = "document.getElementById('drain')"
	shown  = "[...document.querySelectorAll('#services > li:not([hidden]) h3 b')].map(b => b.textContent).join(' ')"
)

// firstSample has a service of 5 clients a second looked at for 3 seconds, with a new connection to Lictor in between.
const firstSample = `import("./service.js").then(({Service}) => {
	const s = new Service("x"), seen = [];
	[0, 1, 0, 1].forEach((seconds, i) => {
		const counters = {connections: 100 + 5 * i, sessions: 0, bytes_up: 0, bytes_down: 0, refused: 0, dials: 0};
		s.take({name: "x", endpoints: [], counters});
		s.tick(1000 * i, seconds);
		seen.push(s.samples.length);
	});
	s.remove();
	window.samples = s.samples.every((x) => x.clients === 5) ? seen.join(" ") : JSON.stringify(s.samples);
}); undefined`

// identities has three services opened: one outside of the mesh, and two in it, of which one has no certificate yet.
const identities = `import("./service.js").then(({Service}) => {
	const told = (name, identity) => {
		const s = new Service(name);
		const counters = {connections: 0, sessions: 0, bytes_up: 0, bytes_down: 0, refused: 0, dials: 0};
		s.take({name, endpoints: [], counters, identity, path: {asked: "off"}});
		s.open(true);
		const text = s.details.identity.hidden ? "hidden" : s.details.identity.textContent;
		s.remove();
		return text.replace(/[\u2068\u2069]/g, "");
	};
	const at = "2027-01-02T03:04:05Z";
	window.identities = [told("x"), told("y", {name: "web", state: "waiting"}),
		told("z", {name: "web", state: "fine", spiffe_id: "spiffe://td/svc/web", received: at, expires: at})].join("|");
}); undefined`

// looks waits until the icon, the title and the header show a state with the text.
func (p *page) looks(state, text string) {
	p.Helper()
	host, err := os.Hostname()
	must(p, err)
	p.shows(fmt.Sprintf("document.getElementById('icon').href.endsWith('/icon-%s.svg') && "+
		"document.title.startsWith(%q) && document.title.includes(%q) && "+
		"document.getElementById('host').textContent === %[2]q && "+
		"document.getElementById('state').innerText.includes(%[3]q.split(', ')[0])", state, host, text))
}

// The page shows in which state Lictor is, and its address holds what the reader has chosen. One browser sees all.
func TestPageStates(t *testing.T) {
	anyEngine(t)
	needTool(t, "chromium", "chromium-browser", "google-chrome")
	a, b := startEcho(t, "a"), startEcho(t, "b")
	var many []string
	for i := range 13 {
		many = append(many, fmt.Sprintf(`"10.0.0.%d:80"`, i+1))
	}
	web := service("web", endpoints(a, b))
	l := runLictor(t, adminBlock+web+service("many", "static { endpoints = ["+strings.Join(many, ", ")+"] }")+
		service("gone", fmt.Sprintf("static { endpoints = [%q] }", deadAddr(t))))
	p := openPage(t, l)
	part := func(name string, test func(t *testing.T)) {
		ok := t.Run(name, func(t *testing.T) {
			all := p.TB
			p.TB = t
			defer func() { p.TB = all }()
			test(t)
		})
		if !ok {
			t.FailNow() // the parts build on each other
		}
	}
	part("fine", func(*testing.T) { p.looks("fine", "all 3 services are fine") })
	part("first sample", func(*testing.T) {
		// Nothing is known of the second before the first look, nor of the time in which nothing was heard. A sample of
		// zero would be drawn as a dip.
		p.script(firstSample)
		p.shows("window.samples === '0 1 1 2'")
	})
	part("identities", func(*testing.T) {
		p.script(identities)
		p.shows("(window.identities || '').startsWith('hidden|" +
			"Dials in the mesh as web: waiting, without a certificate.|" +
			"Dials in the mesh as web: fine, spiffe://td/svc/web, certificate from 2 Jan ')")
	})
	part("refusing and degraded", func(t *testing.T) {
		p.script(fmt.Sprintf("fetch('v1/services/web/drain', {method: 'POST', "+
			"body: JSON.stringify({endpoint: %q, user: 'alice', for: '1h'})})", a.addr))
		defer refusals(t, l.addr(t, "gone"))()
		p.looks("refusing", "1 refuses clients, 1 degraded")
		p.shows(shown + " === 'gone web many'") // the worst first
		// An ejected endpoint that gets clients because all are ejected does not look good.
		p.shows(row("gone") + ".querySelectorAll('.dot.out').length === 1 && " + row("gone") +
			".innerText.includes('1 in (1 ejected)')")
		p.shows(row("gone") + ".innerText.includes('no endpoint is usable: 1 ejected') && " +
			row("gone") + ".querySelector('.n .bad') !== null && document.querySelector('#t-refused.bad') !== null")
	})
	part("address", p.keepsTheAddress)
	part("stopped", func(t *testing.T) {
		l.Kill()
		p.looks("unknown", "no data since ")
		// Nothing of what was there is green any more, and nothing can be drained.
		p.shows(row("web") + ".querySelectorAll('td button:disabled').length === 2")
		if got := p.eval("new Set([...document.querySelectorAll('.mark, .dot, .where, .pill')].map(e => " +
			"getComputedStyle(e).color)).size"); got != "1" {
			t.Errorf("there are %s colours", got)
		}
	})
	p.mu.Lock()
	p.mistakes = nil // the browser could not connect again
	p.mu.Unlock()
}

// refusals has a client refused ten times a second, until stop is called.
func refusals(t testing.TB, addr netip.AddrPort) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		pause := time.NewTicker(100 * time.Millisecond)
		defer pause.Stop()
		for ctx.Err() == nil {
			if who, err := ask(ctx, addr); err == nil {
				t.Errorf("served by %s", who)
			}
			<-pause.C
		}
	})
	return func() { cancel(); running.Wait() }
}

// keepsTheAddress is a part of TestPageStates.
func (p *page) keepsTheAddress(*testing.T) {
	p.script("document.querySelector('a.pill.refusing').click()")
	p.shows("location.search === '?only=refusing' && " + shown + " === 'gone'")
	p.script("history.back()")
	p.shows("location.search === '' && " + shown + " === 'gone web many'")

	// More than a dozen endpoints are summed up.
	p.script(row("many") + ".querySelector('button').click()")
	p.shows("location.search === '?open=many' && " + row("many") + ".querySelector('summary').innerText" +
		".startsWith('13 in: healthy') && " + row("many") + ".querySelectorAll('tbody tr').length === 0")
	p.script(row("many") + ".querySelector('summary').click()")
	p.shows(row("many") + ".querySelectorAll('tbody tr').length === 13")

	// The same address shows the same.
	p.slash()
	p.run(chromedp.KeyEvent("10.0.0.7"))
	p.script("document.getElementById('sort').value = 'name'; " +
		"document.getElementById('sort').dispatchEvent(new Event('change'))")
	p.shows("location.search === '?find=10.0.0.7&sort=name&open=many' && " + shown + " === 'many'")
	p.run(chromedp.Reload())
	p.shows("document.getElementById('find').value === '10.0.0.7' && " + shown + " === 'many' && " + row("many") +
		".querySelector('summary') !== null")

	// An event leads to its service, also if that was not shown.
	const event = "[...document.querySelectorAll('#events li')].find(e => e.innerText.includes('drained by alice'))"
	p.shows(event + " !== undefined")
	p.script(event + ".querySelector('a').click()")
	p.shows("document.activeElement.textContent === 'web' && " + row("web") + ".innerText.includes('for another ')")
	p.script("document.getElementById('find').value = 'nosuch'; " +
		"document.getElementById('find').dispatchEvent(new Event('input'))")
	p.shows("document.getElementById('empty').innerText.includes('No service is like that.')")
	p.script("document.getElementById('all').click()")
	p.shows(shown + " === 'gone many web'")
}
