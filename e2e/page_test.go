//go:build unix

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// chromedp (MIT) drives a real Chromium from Go over Chromium's debugging protocol, without a driver program or Node.
// Only tests use it.

var screenshots = flag.Bool("screenshots", false, "write the screenshots in docs/screenshots anew")

// A page is the admin page of a Lictor in a real browser.
type page struct {
	testing.TB
	ctx context.Context

	mu       sync.Mutex
	mistakes []string // errors that the browser reported; guarded by mu
}

// adminBlock makes the admin API listen at a free port. It has no blank before the equals sign, so that startLictor
// does not count it as a service.
const adminBlock = "admin { listen = \"127.0.0.1:0\" }\n"

// openPage opens the page of l.
func openPage(t testing.TB, l *lictor) *page {
	t.Helper()
	p := openBrowser(t)
	address := l.adminAddress(t)
	p.run(chromedp.Navigate("http://" + address + "/"))
	p.shows(`document.getElementById("t-services").textContent !== "–"`)
	return p
}

// openBrowser opens an empty page. At the end of the test it fails the test if the browser has reported an error, for
// example of a script or of the content policy.
func openBrowser(t testing.TB) *page {
	t.Helper()
	chromium := needTool(t, "chromium", "chromium-browser", "google-chrome")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox,
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WindowSize(1360, 820),
		chromedp.WSURLReadTimeout(patience))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	p := &page{TB: t}
	p.ctx, cancel = chromedp.NewContext(allocator, chromedp.WithListener(func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			p.mistake(fmt.Sprint(e.ExceptionDetails.Text, " ", e.ExceptionDetails.LineNumber, " ",
				e.ExceptionDetails.Exception))
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError {
				p.mistake(e.Entry.Text)
			}
		}
	}))
	t.Cleanup(cancel)
	t.Cleanup(p.check)
	return p
}

// keepScreenshot writes a picture of the page to docs/screenshots.
func (p *page) keepScreenshot(name string) {
	p.Helper()
	png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	must(p, err)
	must(p, os.MkdirAll("../docs/screenshots", 0o755))
	must(p, os.WriteFile(filepath.Join("../docs/screenshots", name+".png"), png, 0o644))
}

// mistake records a complaint of the browser. A busy Lictor may answer 503 to the questions about the past of services,
// and the page then begins their curves now.
func (p *page) mistake(text string) {
	if strings.Contains(text, "503 (Service Unavailable)") {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mistakes = append(p.mistakes, text)
}

func (p *page) check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.mistakes {
		p.Errorf("the browser complains: %s", m)
	}
}

func (p *page) run(actions ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	must(p, chromedp.Do(p.ctx, actions...))
}

// script runs a statement in the page.
func (p *page) script(statement string) {
	p.Helper()
	p.run(chromedp.Evaluate[chromedp.Void](statement))
}

// slash presses that key as a keyboard does: if the page handles the key, the character is not typed. chromedp's own
// KeyEvent sends key and character separately.
func (p *page) slash() {
	p.Helper()
	p.run(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for _, kind := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown,
			input.DispatchKeyEventTypeKeyUp} {
			e := input.DispatchKeyEventParams{Type: kind, Key: "/", Code: "Slash"}
			if kind == input.DispatchKeyEventTypeKeyDown {
				e.Text = "/"
			}
			if _, err := cdp.Call(ctx, t, input.DispatchKeyEvent, e); err != nil {
				return err
			}
		}
		return nil
	}))
}

// eval returns the value of an expression in the page, as text.
func (p *page) eval(expression string) string {
	p.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("String("+expression+")"))
	must(p, err)
	return v
}

// shows waits until an expression is true in the page.
func (p *page) shows(expression string) {
	p.Helper()
	eventually(p, expression, func() error {
		if got := p.eval(expression); got != "true" {
			return fmt.Errorf("%s; the page says:\n%.2000s", got, p.eval("document.body.innerText"))
		}
		return nil
	})
}

// row returns an expression for the row of a service.
func row(name string) string {
	return fmt.Sprintf("[...document.querySelectorAll('#services > li')].find(li => "+
		"li.querySelector('b').textContent === %q)", name)
}

// The page shows new instances, failing instances, and the loss of Consul.
func TestPageShowsInstancesAsTheyComeAndGo(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	needTool(t, "chromium", "chromium-browser", "google-chrome")
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := runLictor(t, adminBlock+consulBlock(c)+service("web")+service("other"))
	p := openPage(t, l)
	p.shows(row("web") + ".innerText.includes('1 in')")
	p.script(row("web") + ".querySelector('button').click()")
	p.shows(row("web") + ".querySelectorAll('tbody tr').length === 1")

	began := time.Now()
	c.register(t, "web", "b", startEcho(t, "b").addr, checked)
	p.shows(row("web") + ".innerText.includes('2 in') && " + row("web") + ".querySelectorAll('tbody tr').length === 2")
	t.Logf("a new instance was shown %v after it was registered", time.Since(began))
	began = time.Now()
	c.setHealth(t, "b", api.HealthCritical)
	p.shows(row("web") + ".innerText.includes('1 in') && " + row("web") + ".querySelectorAll('tr .in').length === 1")
	t.Logf("a dying instance was shown %v after its check failed", time.Since(began))
	p.shows("document.getElementById('events').innerText.includes('left')")

	mustConnect(t, l.addr(t, "web"))
	p.shows("document.getElementById('t-active').textContent === '1'")

	// An operator drains the remaining instance, and undrains it.
	p.script(row("web") + ".querySelector('td button').click()")
	p.shows("document.activeElement.textContent === 'Cancel' && " + dialog + ".innerText.includes('No other endpoint')")
	p.script("document.getElementById('drain-reason').value = 'new disk'; document.getElementById('drain-yes').click()")
	p.shows("!" + dialog + ".open && " + row("web") + ".innerText.includes('none in') && " + row("web") +
		".innerText.includes('drained by page from 127.0.0.1, in this Lictor only: new disk; since ')")
	if _, err := ask(t.Context(), l.addr(t, "web")); err == nil {
		t.Error("a drained instance gets clients")
	}
	p.script(row("web") + ".querySelector('td button').click()") // which is "Undrain" now
	p.shows(row("web") + ".innerText.includes('1 in')")
	awaitRotation(t, l.addr(t, "web"), "a")

	c.Kill()
	p.shows("document.title.includes('1 degraded') && " + row("web") + ".innerText.includes('the source fails') && " +
		row("web") + ".querySelector('.row').classList.contains('old')")
	p.shows("(li => getComputedStyle(li.querySelector('td .in')).color === " +
		"getComputedStyle(li.querySelector('.where')).color)(" + row("web") + ")") // which is grey
	// One cause has one line.
	p.shows("document.getElementById('reasons').innerText.includes('2 services: the source fails')")
}

// Names and IDs are shown as text. If any of them ran as a script, the title would change.
func TestPageShowsMarkupAsText(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	needTool(t, "chromium", "chromium-browser", "google-chrome")
	const name, id = `<svg/onload=document.title='bad'>`,
		`"><img src=x onerror="document.title='bad'"><script>document.title='bad'</script>`
	c := startConsul(t, testconsul.Options{})
	must(t, c.api.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: "web",
		Address: "127.0.0.1", Port: 9}))
	l := runLictor(t, adminBlock+consulBlock(c)+service(name, `consul { service = "web" }`)+service(`&lt;b&gt;`,
		`static { endpoints = ["127.0.0.1:9"] }`))
	p := openPage(t, l)
	p.shows(row(name) + " !== undefined && " + row(`&lt;b&gt;`) + " !== undefined")
	p.script(row(name) + ".querySelector('button').click()")
	p.shows(row(name) + ".querySelector('tbody .id').textContent.endsWith(" + fmt.Sprintf("%q", id) + ")")
	p.shows("document.getElementById('events').textContent.includes(" + fmt.Sprintf("%q", id) + ")")
	if got := p.eval("document.title.endsWith(' – Lictor') + ' ' + document.querySelectorAll('main img, main script, " +
		"#services svg[onload]').length"); got != "true 0" {
		t.Errorf("got %q: something of it was markup", got)
	}
	// Text that changes its direction cannot change that of the text around it.
	if got := p.eval("[...document.querySelectorAll('h3 b, .id, #events a')].filter(e => " +
		"!e.querySelector('bdi')).length"); got != "0" {
		t.Errorf("%s names are not isolated", got)
	}
	// If it became markup, the content policy would not let it run.
	if got := p.eval("(() => { try { document.body.innerHTML = '<b>'; return 'allowed' } catch (e) { return " +
		"'refused' } })()"); got != "refused" {
		t.Errorf("innerHTML is %s", got)
	}
	p.mu.Lock()
	p.mistakes = nil // the refusal is expected
	p.mu.Unlock()
}

func TestPageIsUsableByKeyboard(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	l := runLictor(t, adminBlock+service("alpha", `static { endpoints = ["127.0.0.1:9"] }`)+service("beta",
		`static { endpoints = ["127.0.0.1:9"] }`)+service("gamma", `static { endpoints = ["127.0.0.1:9"] }`))
	p := openPage(t, l)
	p.slash()
	p.shows("document.activeElement.id === 'find'")
	p.run(chromedp.KeyEvent("a"), chromedp.KeyEvent("m"), chromedp.KeyEvent("m"))
	p.shows("document.querySelectorAll('#services > li:not([hidden])').length === 1")
	p.run(chromedp.KeyEvent(kb.Escape))
	p.shows("document.querySelectorAll('#services > li:not([hidden])').length === 3")
	p.run(chromedp.KeyEvent(kb.ArrowDown), chromedp.KeyEvent(kb.ArrowDown))
	p.shows("document.activeElement.textContent.includes('beta')")
	p.run(chromedp.KeyEvent(kb.Enter))
	p.shows("document.activeElement.getAttribute('aria-expanded') === 'true' && " + row("beta") +
		".querySelectorAll('tbody tr').length === 1")
	// A chart tells the value of a moment.
	p.shows(row("beta") + ".querySelector('.chart .line').getAttribute('d').includes('L')")
	p.run(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.ArrowLeft))
	p.shows("document.activeElement.getAttribute('aria-valuenow') < 0 && " +
		"/^\\d.* at \\d\\d:\\d\\d:\\d\\d$/.test(document.activeElement.getAttribute('aria-valuetext'))")
	for range 5 { // the other charts, the table and its button
		p.run(chromedp.KeyEvent(kb.Tab))
	}
	p.shows("document.activeElement.textContent === 'Drain'")
	p.script("document.getElementById('events').focus()")
	p.run(chromedp.KeyEvent(kb.ArrowUp))
	p.shows("document.activeElement.id === 'events'") // the arrows scroll it
	p.script("[...document.querySelectorAll('h3 button')].find(b => b.textContent === 'beta').focus()")
	p.run(chromedp.KeyEvent(kb.ArrowUp), chromedp.KeyEvent(kb.Enter))
	p.shows("location.search === '?open=beta&open=alpha'")
	// Every control has a name for screen readers.
	got := p.eval("[...document.querySelectorAll('button, input, select, a, [tabindex=\"0\"]')].filter(e => " +
		"!e.textContent.trim() && !e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby') && " +
		"!e.labels?.length).length")
	if got != "0" {
		t.Errorf("%s controls have no name", got)
	}
}

func TestPageWithAThousandServices(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	needTool(t, "chromium", "chromium-browser", "google-chrome")
	var config strings.Builder
	config.WriteString(adminBlock)
	for i := range 1000 {
		config.WriteString(service(fmt.Sprintf("service-%04d", i),
			fmt.Sprintf(`static { endpoints = ["10.0.%d.1:80", "10.0.%d.2:80"] }`, i/250, i%250)))
	}
	l := runLictor(t, config.String())
	p := openPage(t, l)
	p.shows("document.querySelectorAll('#services > li').length === 1000 && " +
		"document.getElementById('t-in').textContent === '2,000'")
	p.slash()
	p.run(chromedp.KeyEvent("service-0999")) // with the word, because a port may have these digits
	p.shows("document.querySelectorAll('#services > li:not([hidden])').length === 1 && " +
		"document.getElementById('shown').textContent === '1 of 1,000'")
	// The curves get more points, so the page is not stuck.
	const points = "document.querySelector('#services > li:not([hidden]) " +
		".line').getAttribute('d')?.split('L').length"
	p.shows(points + " > 0") // there is nothing to draw in the first second
	p.shows(points + " > " + p.eval(points))
}

// The page fits a phone without sideways scrolling, and has a light and a dark scheme. With -screenshots the test
// writes the pictures of the README.
func TestPageOnAPhoneAndInBothSchemes(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	needTool(t, "chromium", "chromium-browser", "google-chrome")
	c := startConsul(t, testconsul.Options{})
	l := runLictor(t, adminBlock+consulBlock(c)+service("web")+service("postgres")+service("redis")+service("dns",
		`protocol = "udp"`)+service("legacy", `static { endpoints = ["10.0.0.5:80"] }`))
	for _, name := range []string{"web-1", "web-2", "web-3"} {
		c.register(t, "web", name, startEcho(t, name).addr)
	}
	c.register(t, "postgres", "postgres-1", startEcho(t, "pg").addr)
	c.register(t, "dns", "dns-1", startUDP(t, "dns-1").addr)
	c.register(t, "dns", "dns-2", startUDP(t, "dns-2").addr)
	awaitRotation(t, l.addr(t, "web"), "web-1", "web-2", "web-3")
	stop := traffic(t, l)
	defer stop()
	p := openPage(t, l)
	p.script(row("web") + ".querySelector('button').click()")
	p.shows(row("web") + ".querySelectorAll('tbody tr').length === 3")
	samples := "1"
	if *screenshots {
		samples = "40"
	}
	p.shows(row("web") + ".querySelector('.line').getAttribute('d')?.split('L').length > " + samples)
	p.script(row("web") + ".querySelectorAll('td button')[1].click(); document.getElementById('drain-yes').click()")
	p.shows(row("web") + ".innerText.includes('drained')")
	for _, tt := range []struct {
		name, scheme  string
		width, height int64
	}{{"page-light", "light", 1360, 860}, {"page-dark", "dark", 1360, 860}, {"page-phone", "light", 390, 844}} {
		p.run(chromedp.EmulateViewport(tt.width, tt.height, chromedp.EmulateScale(1.5)),
			chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
				_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia,
					emulation.SetEmulatedMediaParams{
						Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: tt.scheme}},
					})
				return err
			}))
		p.shows("document.documentElement.scrollWidth <= innerWidth")
		got := p.eval("getComputedStyle(document.body).backgroundColor")
		if (got == "rgb(22, 21, 19)") != (tt.scheme == "dark") {
			t.Errorf("%s: the background is %s", tt.name, got)
		}
		if *screenshots {
			p.keepScreenshot(tt.name)
		}
	}
}

// traffic makes connections until stop is called.
func traffic(t testing.TB, l *lictor) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for i, name := range []string{"web", "postgres", "web"} {
		running.Go(func() {
			pause := time.NewTicker(time.Duration(15+20*i) * time.Millisecond)
			defer pause.Stop()
			for ctx.Err() == nil {
				if c, err := connect(ctx, l.addr(t, name)); err == nil {
					_ = c.echo(strings.Repeat("x", 2000*(i+1)))
					_ = c.Close()
				}
				<-pause.C
			}
		})
	}
	return func() { cancel(); running.Wait() }
}
