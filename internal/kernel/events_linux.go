//go:build amd64 || arm64

package kernel

import (
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// An eventReader passes events of the programs to a callback.
type eventReader struct {
	*ringbuf.Reader
	resolve func(programEvent) (Event, bool)
	events  func(Event)
	running sync.WaitGroup
}

// readEvents calls events for each event in the ring buffer that resolve knows, until close.
func readEvents(m *ebpf.Map, resolve func(programEvent) (Event, bool), events func(Event)) (*eventReader, error) {
	if events == nil {
		events = func(Event) {}
	}
	r, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, err
	}
	e := &eventReader{Reader: r, resolve: resolve, events: events}
	e.running.Go(e.read)
	return e, nil
}

func (e *eventReader) read() {
	var record ringbuf.Record
	for {
		if err := e.ReadInto(&record); err != nil {
			return // closed
		}
		if len(record.RawSample) < int(unsafe.Sizeof(programEvent{})) {
			continue
		}
		if event, ok := e.resolve(*(*programEvent)(unsafe.Pointer(&record.RawSample[0]))); ok {
			e.events(event)
		}
	}
}

func (e *eventReader) close() {
	_ = e.Close()
	e.running.Wait()
}

// resolve says what an event is about. It returns false if that endpoint has left its service.
func (p *Path) resolve(e programEvent) (Event, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table == nil {
		return Event{}, false
	}
	o, ok := p.table.owners[e.Endpoint]
	if !ok || p.table.endpoints[e.Endpoint].Generation != e.Generation {
		return Event{}, false
	}
	return Event{Service: o.service.name, Key: o.place.key, Kind: EventKind(e.Kind)}, true
}
