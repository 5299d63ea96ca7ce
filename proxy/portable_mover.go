package proxy

// write delivers b to the destination, however long that takes within the pair's limits.
func (m *mover) write(b []byte) error {
	if len(b) > 0 {
		m.says()
	}
	for len(b) > 0 {
		n, err := m.dst.Write(b)
		m.countMoved(n)
		b = b[n:]
		if err == nil {
			continue
		}
		if end, goOn := m.pair.expired(m, destination, err); end {
			return errStuck
		} else if !goOn {
			return &writeError{err}
		}
	}
	return nil
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

// says notes who was the last to say something, before the other one has it and may answer.
func (m *mover) says() {
	if asked := m.src == m.pair.client; m.pair.asked.Load() != asked {
		m.pair.asked.Store(asked)
	}
}
