//go:build unix

package testpatroni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// requestTimeout limits a request. A member answers a switchover only when it is complete.
const requestTimeout = time.Minute

// request sends a request to the member's REST API, and returns the status and the body of the answer.
func (m *Member) request(ctx context.Context, method, path string, body any) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		sent = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+m.REST()+path, sent)
	if err != nil {
		return 0, nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, text, err
}

// is returns an error unless the member says that it has the role in the path, such as "primary" or "replica".
func (m *Member) is(ctx context.Context, what string) error {
	if !m.Running() {
		return fmt.Errorf("%s: patroni has ended: %s", m.Name, m.Log.Tail(20))
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, _, err := m.request(ctx, http.MethodGet, "/"+what, nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s is not %s: status %d", m.Name, what, status)
	}
	return err
}

// Leader returns the member that says it is the primary, or nil.
func (c *Cluster) Leader(ctx context.Context) *Member {
	for _, m := range c.Members {
		if len(m.frozen) == 0 && m.is(ctx, "primary") == nil {
			return m
		}
	}
	return nil
}

// AwaitHealthy waits until a primary accepts writes and all other members stream from it.
func (c *Cluster) AwaitHealthy(ctx context.Context) error {
	return testproc.Poll(ctx, func() error {
		leader := c.Leader(ctx)
		if leader == nil {
			return errors.New("no member is the primary")
		}
		for _, m := range c.Members {
			if m != leader {
				if err := m.is(ctx, "replica?lag=1MB"); err != nil {
					return err
				}
			}
		}
		rows, err := leader.query(ctx, "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'")
		if err == nil && len(rows) != len(c.Members)-1 {
			err = fmt.Errorf("%s has %d replicas", leader.Name, len(rows))
		}
		return err
	})
}

// query runs a query on the member's PostgreSQL.
func (m *Member) query(ctx context.Context, sql string) ([][]string, error) {
	client, err := Connect(ctx, m.SQL())
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Query(sql)
}

// Switchover makes a replica the primary, and returns when that is complete.
func (c *Cluster) Switchover(ctx context.Context) error {
	leader := c.Leader(ctx)
	if leader == nil {
		return errors.New("no member is the primary")
	}
	i := slices.Index(c.Members, leader)
	candidate := c.Members[(i+1)%len(c.Members)]
	status, text, err := leader.request(ctx, http.MethodPost, "/switchover",
		map[string]string{"leader": leader.Name, "candidate": candidate.Name})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("switchover: status %d: %s", status, text)
	}
	return err
}

// Pause pauses or resumes the cluster, and returns when all members have the new state. In a paused cluster, Patroni
// does not touch PostgreSQL.
func (c *Cluster) Pause(ctx context.Context, paused bool) error {
	status, text, err := c.Members[0].request(ctx, http.MethodPatch, "/config", map[string]any{"pause": paused})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("pause: status %d: %s", status, text)
	}
	if err != nil {
		return err
	}
	return testproc.Poll(ctx, func() error {
		for _, m := range c.Members {
			_, text, err := m.request(ctx, http.MethodGet, "/patroni", nil)
			var state struct{ Pause bool }
			if err == nil {
				err = json.Unmarshal(text, &state)
			}
			if err == nil && state.Pause != paused {
				err = fmt.Errorf("%s: pause is %t", m.Name, state.Pause)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Prepare creates the table for the writers, or empties it.
func (c *Cluster) Prepare(ctx context.Context) error {
	leader := c.Leader(ctx)
	if leader == nil {
		return errors.New("no member is the primary")
	}
	_, err := leader.query(ctx, "CREATE TABLE IF NOT EXISTS writes (key text); TRUNCATE writes")
	return err
}

// Lost stores in the tallies of the writers how many of their acknowledged writes the primary lacks.
func (c *Cluster) Lost(ctx context.Context, all ...*Writers) error {
	leader := c.Leader(ctx)
	if leader == nil {
		return errors.New("no member is the primary")
	}
	// The snapshot comes first, so that a write acknowledged during the query does not count as lost.
	acked := make([]map[string]bool, len(all))
	for i, w := range all {
		acked[i] = w.snapshot()
	}
	rows, err := leader.query(ctx, "SELECT key FROM writes")
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, row := range rows {
		there[row[0]] = true
	}
	for i, w := range all {
		w.setLost(acked[i], there)
	}
	return nil
}

// IsPrimary reports whether the member says that it is the primary.
func (m *Member) IsPrimary(ctx context.Context) bool { return m.is(ctx, "primary") == nil }

// Writers returns the number of writers connected to the member, or -1 if PostgreSQL does not answer.
func (m *Member) Writers(ctx context.Context) int {
	rows, err := m.query(ctx, "SELECT pid FROM pg_stat_activity WHERE query LIKE 'INSERT INTO writes %'")
	if err != nil {
		return -1
	}
	return len(rows)
}
