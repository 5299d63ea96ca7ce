package admin

import (
	"bytes"
	"encoding/json"
	"sync"

	"github.com/lictor-proxy/lictor/internal/visible"
)

// A hub keeps the services as last shown, so that streams send only what changed. It is empty while nobody looks. A
// slow stream holds up nobody: it takes what is new whenever it comes, and of a service only the newest state.
type hub struct {
	mu       sync.Mutex
	streams  int
	seq      uint64 // of the newest change
	services map[string]shown
	status   *Status       // of the last look; nil: there was none since somebody watches
	changed  chan struct{} // closed at the next change
	entered  chan struct{} // holds one while a stream has come that nothing was published for
}

// shown is one service as JSON; nil: it is gone.
type shown struct {
	text []byte
	seq  uint64
}

func newHub() *hub {
	return &hub{services: map[string]shown{}, changed: make(chan struct{}), entered: make(chan struct{}, 1)}
}

// enter counts a stream. It begins with what was published last; if nothing was, entered says so.
func (h *hub) enter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams++; h.status != nil {
		return
	}
	select {
	case h.entered <- struct{}{}:
	default:
	}
}

func (h *hub) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams--; h.streams == 0 {
		clear(h.services)
		h.status = nil
	}
}

func (h *hub) watched() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.streams > 0
}

// publish shows services. Each call wakes the streams, for with the services the time moves on.
func (h *hub) publish(services []Service, status Status) {
	texts := make(map[string][]byte, len(services))
	for i := range services {
		text, _ := json.Marshal(&services[i]) // plain data: it cannot fail
		texts[services[i].Name] = visible.JSON(text)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams == 0 {
		return // the last one left meanwhile
	}
	h.seq++
	h.status = &status
	for name, text := range texts {
		if !bytes.Equal(h.services[name].text, text) {
			h.services[name] = shown{text, h.seq}
		}
	}
	for name, s := range h.services {
		if texts[name] == nil && s.text != nil {
			h.services[name] = shown{nil, h.seq}
		}
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// after returns what changed after seq, the status or nil, the number to go on after, and a channel that is closed
// at the next change.
func (h *hub) after(seq uint64) (c changes, status *Status, next uint64, more <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.Services, c.Removed = []json.RawMessage{}, []string{}
	for name, s := range h.services {
		switch {
		case s.seq <= seq:
		case s.text == nil:
			c.Removed = append(c.Removed, name)
		default:
			c.Services = append(c.Services, s.text)
		}
	}
	return c, h.status, h.seq, h.changed
}

type changes struct {
	Services []json.RawMessage `json:"services"`
	Removed  []string          `json:"removed"`
}

// text returns c as JSON. encoding/json would parse all services again, for each stream.
func (c *changes) text() []byte {
	removed, _ := json.Marshal(c.Removed) // strings cannot fail
	size := len(removed) + 100
	for _, s := range c.Services {
		size += len(s) + 1
	}
	b := append(make([]byte, 0, size), `{"services":[`...)
	for i, s := range c.Services {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, s...)
	}
	b = append(b, `],"removed":`...)
	return append(append(b, removed...), '}')
}
