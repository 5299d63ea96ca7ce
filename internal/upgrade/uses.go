package upgrade

import (
	"errors"
	"net/netip"
	"os"
)

// A former process goes on telling the process that serves what its remaining connections use, so that limits hold for
// both together:
//
//	former process                             process that serves
//	uses: all that there are           ------>
//	uses: counts that have changed     ------>
//	                                           is replaced by another one
//	                                   <------ moved: a socket to that one
//	uses: all that there are           ------------------------------------>  the other one
//
// When the former process ends, its socket closes.

// A Use is how many uses there are of one kind: of an endpoint of a service, which has an ID and an address, or of a
// client of a service. Without either, it is how many clients wait in the queue of the service.
type Use struct {
	Service string     `json:"service"`
	ID      string     `json:"id,omitempty"`
	Address string     `json:"address,omitempty"`
	Client  netip.Addr `json:"client,omitzero"`
	Count   int64      `json:"count"`
}

// A ProcessUses is what a process uses.
type ProcessUses struct {
	PID  int   `json:"pid"`
	Uses []Use `json:"uses,omitempty"`
}

// A Former is a process that has been replaced and still has connections, as the process that serves sees it.
type Former struct {
	PID  int
	conn *conn
}

// Receive returns the counts that have changed. If all is true, these are all that there are. It returns an error when
// the process has ended, when it tells nothing more, or after Close.
func (f *Former) Receive() (uses []Use, all bool, err error) {
	for {
		var m message
		fds, err := f.conn.receive(&m)
		closeDescriptors(fds) // there should be none
		if err != nil {
			return nil, false, err
		}
		if m.Kind == kindUses {
			return m.Uses, m.All, nil
		}
	}
}

// Close has Receive return.
func (f *Former) Close() { f.conn.close() }

// move tells f that another process serves now. It returns that process's end of the socket over which f tells it.
func (f *Former) move() (*os.File, error) {
	c, file, err := newPair()
	if err != nil {
		return nil, err
	}
	defer c.close() // f has a descriptor of its own
	fd, err := descriptor(c)
	if err == nil {
		err = f.conn.send(message{Kind: kindMoved}, fd)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// A Serving is the process that serves, as a former process sees it.
type Serving struct{ conn *conn }

// Tell sends counts that have changed, or all.
func (s *Serving) Tell(uses []Use, all bool) error {
	return s.conn.send(message{Kind: kindUses, Uses: uses, All: all})
}

// Moved waits until another process serves, and returns that one. The caller closes s then, and tells the other one all
// that there is. It returns an error when the process that served has ended, or after Close.
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

// Close has Tell and Moved fail.
func (s *Serving) Close() { s.conn.close() }
