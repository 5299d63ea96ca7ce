package admin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/proxy"
)

// Access configures who may use a listener, in addition to the guard's fixed rules.
type Access struct {
	TokenFile string   // all requests but probes need the token in this file; empty: no token is needed
	Hosts     []string // accepted names in a Host header, besides IP addresses and this host's own name
}

// A front serves one listener of a Server.
type front struct {
	http     *http.Server
	listener net.Listener                 // the listener that connections are accepted from
	handler  atomic.Pointer[http.Handler] // the routes behind the current guard
	left     atomic.Bool                  // Leave has closed listener
	stopping context.Context              // ends when streams must end
	stop     context.CancelFunc
}

// frontKey is the context key for the front of a request.
type frontKey struct{}

// newFront returns the front for l.
func (s *Server) newFront(l net.Listener, access Access) *front {
	f := &front{listener: proxy.PlainListener(l)}
	f.stopping, f.stop = context.WithCancel(s.stopping)
	f.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			(*f.handler.Load()).ServeHTTP(w, r)
		}),
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), frontKey{}, f)
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: func(c net.Conn, state http.ConnState) { c.(*slotConn).enter(state) },
		Protocols: new(http.Protocols), // HTTP/1 only: one HTTP/2 connection could carry any number of requests

		ReadHeaderTimeout: s.o.times.header,
		ReadTimeout:       s.o.times.request,
		WriteTimeout:      answerTime,
		IdleTimeout:       s.o.times.idle,
		MaxHeaderBytes:    maxHeader - 4<<10, // net/http adds 4 KiB for its buffer
		ErrorLog:          s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	f.http.Protocols.SetHTTP1(true)
	f.admit(s.mux(), l, access)
	return f
}

// admit replaces the access rules.
func (f *front) admit(next http.Handler, l net.Listener, access Access) {
	_, local := l.Addr().(*net.UnixAddr)
	g := &guard{hosts: access.Hosts, tokenFile: access.TokenFile, reading: make(chan struct{}, 1)}
	handler := g.wrap(next, local)
	f.handler.Store(&handler)
}

// ending returns a channel that is closed when the stream for r must end.
func ending(r *http.Request) <-chan struct{} {
	if f, ok := r.Context().Value(frontKey{}).(*front); ok {
		return f.stopping.Done()
	}
	return nil // a request without a front, as in a test
}

// close ends streams and closes the listener. Requests may finish until ctx ends.
func (f *front) close(ctx context.Context) {
	f.stop()
	if f.http.Shutdown(ctx) != nil {
		_ = f.http.Close()
	}
}

// Serve opens l and serves it until Shutdown, or until Leave for l. See Open.
func (s *Server) Serve(l net.Listener, access Access) error { return s.Open(l, access)() }

// Open registers l with s, for Admit, Leave, Release and Shutdown. The caller must call the returned function exactly
// once. The returned function serves l until Shutdown, or until Leave for l; then it closes l and returns nil.
func (s *Server) Open(l net.Listener, access Access) (serve func() error) {
	s.begin.Do(func() { s.running.Go(s.tick) })
	f := s.newFront(l, access)
	s.mu.Lock()
	s.fronts[l] = f
	s.mu.Unlock()
	return func() error {
		defer s.forget(l)
		if s.stopping.Err() != nil { // Shutdown may have run before l was registered
			f.close(s.stopping)
		}
		err := f.http.Serve(s.slots.listener(f.listener))
		if errors.Is(err, http.ErrServerClosed) || f.left.Load() || s.released.Load() {
			return nil
		}
		return err
	}
}

// Release stops accepting at l, because another process serves l's address now. Open connections continue until
// Shutdown.
func (s *Server) Release(l net.Listener) {
	s.released.Store(true)
	if own, ok := l.(*socket); ok {
		own.kept.Store(true)
	}
	s.mu.Lock()
	f := s.fronts[l]
	s.mu.Unlock()
	if f != nil {
		l = f.listener // f may accept from a duplicate of the socket
	}
	_ = l.Close() // the other process keeps the socket open
}

func (s *Server) forget(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.released.Load() { // after Release, Shutdown must still find l and wait for the upgrade request
		delete(s.fronts, l)
	}
}

// Admit replaces the access rules of l, which must be open. Open streams continue.
func (s *Server) Admit(l net.Listener, access Access) {
	s.mu.Lock()
	f := s.fronts[l]
	s.mu.Unlock()
	if f != nil {
		f.admit(s.mux(), l, access)
	}
}

// Leave closes l, so that its address is free, and ends the streams of l. The returned function waits until the open
// requests of l are answered, and cuts them when ctx ends.
func (s *Server) Leave(l net.Listener) (finish func(ctx context.Context)) {
	s.mu.Lock()
	f := s.fronts[l]
	s.mu.Unlock()
	if f == nil {
		return func(context.Context) {}
	}
	f.left.Store(true)
	_ = f.listener.Close()
	f.stop()
	return f.close
}

// Shutdown ends all streams and closes all listeners. Requests may finish until ctx ends.
func (s *Server) Shutdown(ctx context.Context) {
	s.stop()
	s.mu.Lock()
	var fronts []*front
	for _, f := range s.fronts {
		fronts = append(fronts, f)
	}
	s.mu.Unlock()
	for _, f := range fronts {
		f.close(ctx)
	}
	s.running.Wait()
}
