package proxy

import "slices"

// start first opens the endpoint's end and moves the client's bytes that earlier endpoints did not take. Then start
// calls run.
func (m *mover) start() error {
	if m.src == m.pair.client {
		if err := m.announce(); err != nil {
			return err
		}
	}
	return m.run()
}

// copyAll is run by Read and Write, where run cannot use the descriptors. copyAll holds a pooled buffer while it waits
// for the source.
func (m *mover) copyAll() error {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		n, err := m.src.Read(buf[:])
		if werr := m.write(buf[:n]); werr != nil {
			return werr
		}
		if err == nil {
			continue
		}
		if err == errAnswerFirst {
			if err := m.answer(); err != nil {
				return err
			}
			continue
		}
		if end, goOn := m.pair.expired(m, source, err); end {
			return errIdle
		} else if !goOn {
			return err
		}
	}
}

// write writes all of b to the destination, or until a limit of the pair ends it.
func (m *mover) write(b []byte) error {
	if len(b) > 0 {
		m.says()
	}
	if c, is := m.dst.(*secureConn); is {
		return m.encrypt(c, b)
	}
	for len(b) > 0 {
		n, err := m.dst.Write(b)
		m.countMoved(m.withoutOpening(n))
		b = b[n:]
		if err == nil {
			continue
		}
		end, goOn := m.pair.expired(m, destination, err)
		if !goOn {
			m.keepUntaken(b[m.opening:])
		}
		if end {
			return errStuck
		} else if !goOn {
			return &writeError{err}
		}
	}
	return nil
}

// keepUntaken keeps b for another endpoint after b could not be written. keepUntaken does nothing unless b is
// everything that the client has sent so far.
func (m *mover) keepUntaken(b []byte) {
	if m.src == m.pair.client && m.moved.Load() == 0 {
		m.pair.mu.Lock()
		m.pair.untaken, m.pair.kept = slices.Clone(b), true
		m.pair.mu.Unlock()
	}
}

func (m *mover) countMoved(n int) {
	if n > 0 {
		if e := m.pair.endpoint; m.moved.Add(int64(n)) == int64(n) && e != nil && m.src == m.pair.server {
			e.Reached()
		}
		m.total.Add(int64(n))
		m.pair.touch()
	}
}

// says records which side was the last to send. says must be called before the other side can get the bytes and answer.
func (m *mover) says() {
	if asked := m.src == m.pair.client; m.pair.asked.Load() != asked {
		m.pair.asked.Store(asked)
	}
}
