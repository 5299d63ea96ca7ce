package upgrade

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
)

// A former process reports to the serving process what its remaining connections use, so that limits apply to both
// processes together. It also reports its counters:
//
//	former process                             serving process
//	uses: all counts                   ------>
//	uses: changed counts               ------>
//	                                           is replaced by another process
//	                                   <------ moved: a socket to that process
//	uses: all counts                   ------------------------------------>  the other process
//
// When the former process ends, its socket closes.

// A Use counts the clients of an endpoint of a service, which has an ID and an address, or the connections of one
// client, which has an address or an identity. Without an endpoint and a client, it counts the clients in the service's
// queue.
type Use struct {
	Service  string     `json:"service"`
	ID       string     `json:"id,omitempty"`
	Address  string     `json:"address,omitempty"`
	Client   netip.Addr `json:"client,omitzero"`
	Identity string     `json:"identity,omitempty"`
	Count    int64      `json:"count"`
}

// A ProcessUses lists the uses of a process.
type ProcessUses struct {
	PID  int   `json:"pid"`
	Uses []Use `json:"uses,omitempty"`
}

// A Former is a process that has been replaced and still has connections, seen from the serving process.
type Former struct {
	PID  int
	conn *conn
}

// A Report is what a former process reports.
type Report struct {
	Uses     []Use
	All      bool            // Uses has all uses; false: only those whose counts have changed
	Counters json.RawMessage // in a form that the caller of Tell chooses; nil: they have not changed
}

// Receive waits for a report. Receive returns an error when the process has ended or reports nothing more, or after
// Close.
func (f *Former) Receive() (Report, error) {
	for {
		var m message
		fds, err := f.conn.receive(&m)
		closeDescriptors(fds) // no descriptors are expected
		if err != nil {
			return Report{}, err
		}
		if m.Kind == kindUses {
			return Report{m.Uses, m.All, m.Counters}, nil
		}
	}
}

// Close makes Receive return an error.
func (f *Former) Close() { f.conn.close() }

// move tells f that another process serves now. move returns that process's end of the socket for the reports of f.
func (f *Former) move() (*os.File, error) {
	c, file, err := newPair()
	if err != nil {
		return nil, err
	}
	defer c.close() // f has its own descriptor
	fd, err := descriptor(c)
	if err == nil {
		err = f.conn.send(message{Kind: kindMoved}, fd)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// A Serving is the serving process, seen from a former process.
type Serving struct{ conn *conn }

// Tell sends a report.
func (s *Serving) Tell(r Report) error {
	return s.conn.send(message{Kind: kindUses, Uses: r.Uses, All: r.All, Counters: r.Counters})
}

// Moved waits until another process serves, and returns that process. The caller must then close s, and send all counts
// to the new process. Moved returns an error when the serving process has ended without a successor, or after Close.
func (s *Serving) Moved() (*Serving, error) {
	for {
		var m message
		fds, err := s.conn.receive(&m)
		if err != nil {
			return nil, err
		}
		if m.Kind != kindMoved || len(fds) != 1 {
			closeDescriptors(fds)
			continue
		}
		c, err := inheritConn(fds[0])
		if err != nil {
			return nil, err
		}
		return &Serving{c}, nil
	}
}

// Close makes Tell and Moved return errors.
func (s *Serving) Close() { s.conn.close() }
