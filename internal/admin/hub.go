package admin

import (
	"bytes"
	"encoding/json"
	"sync"

	"github.com/lictor-proxy/lictor/internal/visible"
)

// A hub keeps the last published state of each service, so that streams send only changes. The hub is empty while no
// stream is open. A slow stream delays no other stream: it receives only the newest state of each service.
type hub struct {
	mu       sync.Mutex
	streams  int
	seq      uint64 // number of the newest change
	services map[string]shown
	status   *Status       // the last published status; nil if nothing was published since the first stream came
	changed  chan struct{} // closed at the next change
	entered  chan struct{} // has an element if a stream came before anything was published
}

// shown is one service as JSON. A nil text means that the service was removed.
type shown struct {
	text []byte
	seq  uint64
}

func newHub() *hub {
	return &hub{services: map[string]shown{}, changed: make(chan struct{}), entered: make(chan struct{}, 1)}
}

// enter counts a stream. If nothing was published yet, enter signals h.entered.
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

// publish stores services and status, and wakes all streams. publish wakes them even if no service changed, because the
// status has a new time.
func (h *hub) publish(services []Service, status Status) {
	texts := make(map[string][]byte, len(services))
	for i := range services {
		text, _ := json.Marshal(&services[i]) // marshalling plain data cannot fail
		texts[services[i].Name] = visible.JSON(text)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams == 0 {
		return // the last stream left meanwhile
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

// after returns the changes after seq, the status or nil, the number to continue after, and a channel that is closed at
// the next change.
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

// text returns c as JSON. encoding/json would parse every service again for each stream, so text joins the parts
// itself.
func (c *changes) text() []byte {
	removed, _ := json.Marshal(c.Removed) // marshalling strings cannot fail
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
