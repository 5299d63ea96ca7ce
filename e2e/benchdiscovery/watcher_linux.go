package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// A watcher follows the service web in Consul by blocking queries, over https like Lictor. It notes when instances come
// and go. No proxy that follows Consul can know a change earlier.
type watcher struct {
	id     string
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	in   bool
	at   time.Time     // time of the last change
	news chan struct{} // closed and replaced at each change
	err  error         // why the watcher has ended
}

func startWatcher(ctx context.Context, s *stage, id string) (*watcher, error) {
	config := api.DefaultConfig()
	config.Address, config.Scheme = s.consul.HTTPS, "https"
	config.TLSConfig.CAFile = s.consul.CAFile
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{id: id, cancel: cancel, done: make(chan struct{}), news: make(chan struct{})}
	go w.watch(ctx, client)
	return w, nil
}

func (w *watcher) close() {
	w.cancel()
	<-w.done
}

// watch follows the service until ctx ends or a query fails.
func (w *watcher) watch(ctx context.Context, client *api.Client) {
	defer close(w.done)
	var index uint64
	for {
		// The parameters are Lictor's, so that the agent answers both from one view.
		entries, meta, err := client.Health().Service("web", "", false,
			(&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx))
		now := time.Now()
		if err != nil {
			w.note(now, false, err)
			return
		}
		index = max(meta.LastIndex, 1)
		in := false
		for _, e := range entries {
			in = in || e.Service.ID == w.id && e.Checks.AggregatedStatus() == api.HealthPassing
		}
		w.note(now, in, nil)
	}
}

func (w *watcher) note(now time.Time, in bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.in != in {
		w.in, w.at = in, now
	}
	w.err = err
	close(w.news)
	w.news = make(chan struct{})
}

// saw waits until the instance is in or out, as given, and returns since when.
func (w *watcher) saw(ctx context.Context, in bool) (time.Time, error) {
	for {
		w.mu.Lock()
		is, at, news, err := w.in, w.at, w.news, w.err
		w.mu.Unlock()
		switch {
		case err != nil:
			return time.Time{}, fmt.Errorf("bare query: %w", err)
		case is == in && !at.IsZero():
			return at, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}
