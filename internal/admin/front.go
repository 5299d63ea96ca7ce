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

// Access says who may ask at a listener, beside what guard says.
type Access struct {
	TokenFile string   // nobody but probes is answered without the token in it; empty: no token
	Hosts     []string // names in a Host header that are this server, beside IP addresses and this host's own name
}

// A front is a Server at one of its listeners.
type front struct {
	http     *http.Server
	listener net.Listener                 // what it accepts from
	handler  atomic.Pointer[http.Handler] // behind the guard of now
	left     atomic.Bool                  // Leave has closed listener
	stopping context.Context              // ends when streams are to end
	stop     context.CancelFunc
}

// frontKey is where a request's context has its front.
type frontKey struct{}

// newFront returns the front for l.
func (s *Server) newFront(l net.Listener, who Access) *front {
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
		Protocols: new(http.Protocols), // a connection of HTTP/2 could carry any number of requests

		ReadHeaderTimeout: s.o.times.header,
		ReadTimeout:       s.o.times.request,
		WriteTimeout:      answerTime,
		IdleTimeout:       s.o.times.idle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	f.http.Protocols.SetHTTP1(true)
	f.admit(s.mux(), l, who)
	return f
}

// admit makes who those who may ask from now on.
func (f *front) admit(next http.Handler, l net.Listener, who Access) {
	_, local := l.Addr().(*net.UnixAddr)
	handler := (&guard{hosts: who.Hosts, tokenFile: who.TokenFile, reading: make(chan struct{}, 1)}).wrap(next, local)
	f.handler.Store(&handler)
}

// ending is closed when the stream that r asks for is to end.
func ending(r *http.Request) <-chan struct{} {
	if f, ok := r.Context().Value(frontKey{}).(*front); ok {
		return f.stopping.Done()
	}
	return nil // nobody serves it
}

// close ends streams, lets requests finish until ctx ends, and closes the listener.
func (f *front) close(ctx context.Context) {
	f.stop()
	if f.http.Shutdown(ctx) != nil {
		_ = f.http.Close()
	}
}

// Serve is Open, and calls the function that it returns.
func (s *Server) Serve(l net.Listener, who Access) error { return s.Open(l, who)() }

// Open makes l a listener of s, which Admit, Leave, Release and Shutdown know from then on. The caller has to call the
// function that it returns, once: it answers what comes in at l until Shutdown, or Leave for l, and then returns nil.
// It closes l.
func (s *Server) Open(l net.Listener, who Access) (serve func() error) {
	s.begin.Do(func() { s.running.Go(s.tick) })
	f := s.newFront(l, who)
	s.mu.Lock()
	s.fronts[l] = f
	s.mu.Unlock()
	return func() error {
		defer s.forget(l)
		if s.stopping.Err() != nil { // Shutdown may not have seen it
			f.close(s.stopping)
		}
		err := f.http.Serve(s.slots.listener(f.listener))
		if errors.Is(err, http.ErrServerClosed) || f.left.Load() || s.released.Load() {
			return nil
		}
		return err
	}
}

// Release takes no more connections at l, which another process serves by now. Those that there are go on until
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
		l = f.listener // it may accept from a duplicate of the socket
	}
	_ = l.Close() // the other one has it open
}

func (s *Server) forget(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.released.Load() { // else Shutdown waits for the request that this is due to
		delete(s.fronts, l)
	}
}

// Admit makes who those who may ask at l, which is being served, from now on. Streams that are under way go on.
func (s *Server) Admit(l net.Listener, who Access) {
	s.mu.Lock()
	f := s.fronts[l]
	s.mu.Unlock()
	if f != nil {
		f.admit(s.mux(), l, who)
	}
}

// Leave closes l, so that its address is free, and ends the streams that are served there. The function that it returns
// waits until the requests that are under way are answered, or cuts them when ctx ends.
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

// Shutdown ends streams, lets requests finish until ctx ends, and closes the listeners.
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
