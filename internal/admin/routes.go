package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// A route is one request that the API supports. docs/api.md describes each route, and a test compares both.
type route struct {
	method, path string
	serve        http.HandlerFunc
}

func (s *Server) routes() []route {
	return append(pageRoutes(), []route{
		{"GET", "/healthz", s.healthz},
		{"GET", "/readyz", s.readyz},
		{"GET", "/metrics", s.scrapes.ServeHTTP},
		{"GET", "/v1/status", s.work.shared(s.getStatus)},
		{"GET", "/v1/services", s.work.shared(s.getServices)},
		{"GET", "/v1/services/{name}", s.work.shared(s.getService)},
		{"GET", "/v1/services/{name}/excluded", s.queries.shared(s.getExcluded)},
		{"GET", "/v1/services/{name}/history", s.work.shared(s.getHistory)},
		{"POST", "/v1/services/{name}/drain", s.drain},
		{"POST", "/v1/services/{name}/undrain", s.undrain},
		{"GET", "/v1/connections", s.walks.shared(s.getConnections)},
		{"GET", "/v1/mesh", s.work.shared(s.getMesh)},
		{"GET", "/v1/mesh/access", s.queries.shared(s.getAccess)},
		{"GET", "/v1/events", s.getEvents},
		{"GET", "/v1/watch", s.watch},
		{"GET", "/v1/config", s.work.shared(s.getConfig)},
		{"POST", "/v1/reload", s.postReload},
		{"POST", "/v1/upgrade", s.postUpgrade},
		{"POST", "/v1/log-level", s.postLogLevel},
	}...)
}

// mux returns a handler for all routes that sets the common headers and limits the body. Requests that match no route
// get a JSON body as well, where http.ServeMux would send text.
func (s *Server) mux() http.Handler {
	mux := http.NewServeMux()
	allowed := map[string]string{} // the value of the header Allow, by path
	for _, r := range s.routes() {
		mux.HandleFunc(r.method+" "+r.path, r.serve)
		allowed[r.path] = allow(allowed[r.path], r.method)
	}
	for path, methods := range allowed {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", methods)
			refuse(w, http.StatusMethodNotAllowed,
				fmt.Errorf("%s is not for the method %s, only for: %s", r.URL.Path, r.Method, methods))
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, fmt.Errorf("there is no path %s: see docs/api.md", r.URL.Path))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("X-Frame-Options", "DENY")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-store")
		header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

// allow adds method to a list in the header Allow (RFC 9110, 10.2.1). A route for GET serves HEAD, too.
func allow(list, method string) string {
	if method == http.MethodGet {
		method = "GET, HEAD"
	}
	if list == "" {
		return method
	}
	return list + ", " + method
}

// healthz answers 200 while everything that clients depend on makes progress. healthz calls nothing but Healthy, so
// that nothing else can block it.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if s.o.Healthy != nil {
		if err := s.o.Healthy(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprintf(w, "not healthy\n%v\n", err)
			return
		}
	}
	_, _ = io.WriteString(w, "ok\n")
}

// readyz answers 200 once each service has a set.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	missing, all := s.o.State.unready()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if missing > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintf(w, "not ready: %d of %d services have no set of endpoints yet\n", missing, all)
		return
	}
	_, _ = io.WriteString(w, "ready\n")
}

func (s *Server) status(services []Service) Status {
	t := summary(services)
	t.Version, t.Revision, t.PID, t.Started, t.Now = s.o.Version, s.o.Revision, os.Getpid(), s.started, time.Now()
	t.Host, _ = os.Hostname() // without a name, the field is empty
	t.CommandLine = s.o.CommandLine
	if s.o.Level != nil {
		t.LogLevel = s.o.Level()
	}
	t.Pending = s.pending()
	t.Consul = s.o.State.consul()
	for _, d := range s.o.State.Proxier.Denied() {
		t.Denied = append(t.Denied, Denied(d))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.LastReload = s.reload
	t.judge(services, s.o.State.mesh().Exposed)
	return t
}

func (s *Server) getStatus(w http.ResponseWriter, _ *http.Request) {
	reply(w, s.status(s.o.State.services()))
}

// ServicesAnswer is the response body of /v1/services.
type ServicesAnswer struct {
	Now      time.Time `json:"now"`
	Services []Service `json:"services"`
}

func (s *Server) getServices(w http.ResponseWriter, _ *http.Request) {
	reply(w, ServicesAnswer{Now: time.Now(), Services: s.o.State.services()})
}

func (s *Server) getService(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	one, is := s.o.State.service(name)
	if !is {
		refuse(w, http.StatusNotFound, fmt.Errorf("there is no service %q", name))
		return
	}
	reply(w, one)
}

// ExcludedAnswer is the response body of /v1/services/{name}/excluded. Problems has the reasons why a service without
// endpoints has none.
type ExcludedAnswer struct {
	Endpoints []Endpoint `json:"endpoints"`
	Problems  []string   `json:"problems,omitempty"`
}

// excludedTime limits the time for Consul's answer to a request for excluded instances.
const excludedTime = 3 * time.Second

func (s *Server) getExcluded(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if !s.serves(name) {
		refuse(w, http.StatusNotFound, fmt.Errorf("there is no service %q", name))
		return
	}
	answer := ExcludedAnswer{Endpoints: []Endpoint{}}
	ctx, cancel := context.WithTimeoutCause(r.Context(), excludedTime,
		fmt.Errorf("consul did not answer within %v", excludedTime))
	defer cancel()
	if s.o.State.Excluded != nil {
		excluded, err := s.o.State.Excluded(ctx, name)
		if err != nil {
			refuse(w, http.StatusServiceUnavailable, err)
			return
		}
		answer.Endpoints = append(answer.Endpoints, excluded...)
	}
	if v, _ := s.o.State.Sets.View(name); len(v.Endpoints) == 0 && s.o.State.Problems != nil {
		answer.Problems = s.o.State.Problems(ctx, name)
	}
	reply(w, answer)
}

// HistoryAnswer is the response body of /v1/services/{name}/history.
type HistoryAnswer struct {
	IntervalSeconds float64  `json:"interval_seconds"`
	Samples         []Sample `json:"samples"`
}

func (s *Server) getHistory(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if !s.serves(name) {
		refuse(w, http.StatusNotFound, fmt.Errorf("there is no service %q", name))
		return
	}
	reply(w, HistoryAnswer{IntervalSeconds: sampleEvery.Seconds(), Samples: s.history.of(name)})
}

// serves reports whether the configuration in force has the service.
func (s *Server) serves(name string) bool {
	return slices.ContainsFunc(s.o.State.Configured(), func(c Configured) bool { return c.Name == name })
}

// EventsAnswer is the response body of /v1/events.
type EventsAnswer struct {
	Next   uint64  `json:"next"`
	Events []Event `json:"events"`
}

// usualEvents is the number of events in an answer, unless the request has a limit.
const usualEvents = 1024

// getEvents answers at once. With wait=SECONDS it waits until there is an event that the client has not seen.
func (s *Server) getEvents(w http.ResponseWriter, r *http.Request) {
	after, err1 := number(r, "after", 0)
	limit, err2 := number(r, "limit", usualEvents)
	wait, err3 := number(r, "wait", 0)
	if err := errors.Join(err1, err2, err3); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	patience := time.Duration(min(wait, uint64(maxWait.Seconds()))) * time.Second
	if patience > 0 {
		leave, err := s.streams.take(r)
		if err != nil {
			refuse(w, http.StatusServiceUnavailable, err)
			return
		}
		defer leave()
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience + answerTime))
	over := time.NewTimer(patience)
	defer over.Stop()
	service := r.FormValue("service")
	for seen := after; patience > 0; { // each look goes on where the last one ended, because all events wait for a look
		some, next, more := s.o.Events.After(seen, service, 1)
		if len(some) > 0 {
			break
		}
		seen = next
		select {
		case <-more:
			continue
		case <-over.C:
		case <-r.Context().Done():
		case <-ending(r):
		}
		break
	}
	s.work.shared(func(w http.ResponseWriter, _ *http.Request) {
		events, next, _ := s.o.Events.After(after, service, int(min(limit, endpoints.MaxEvents)))
		reply(w, EventsAnswer{Next: next, Events: eventsOf(events)})
	})(w, r)
}

// number returns the whole number in a query parameter. number returns without if the parameter is missing.
func number(r *http.Request, name string, without uint64) (uint64, error) {
	text := r.FormValue(name)
	if text == "" {
		return without, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s=%q is not a whole number", name, text)
	}
	return n, nil
}

func (s *Server) getConfig(w http.ResponseWriter, _ *http.Request) {
	if s.o.Config == nil {
		refuse(w, http.StatusNotImplemented, errors.New("this process does not show its configuration"))
		return
	}
	text, err := json.Marshal(s.o.Config())
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	if pending := s.pending(); len(pending) > 0 {
		more, _ := json.Marshal(pending) // marshalling strings cannot fail
		text = fmt.Appendf(bytes.TrimSuffix(text, []byte("}")), `,"pending":%s}`, more)
	}
	reply(w, json.RawMessage(text))
}

// pending returns the configuration changes that the last reload left for a restart.
func (s *Server) pending() []Pending {
	if s.o.Pending == nil {
		return nil
	}
	return s.o.Pending()
}

// postReload reloads and waits for the result. Options.Reload ensures that only one reload runs at a time.
func (s *Server) postReload(w http.ResponseWriter, r *http.Request) {
	if s.o.Reload == nil {
		err := errors.New("this process never reloads its configuration: restart it to apply changes")
		refuse(w, http.StatusNotImplemented, err)
		return
	}
	leave, err := s.changes.take(r)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	defer leave()
	summary, err := s.o.Reload(r.Context())
	outcome := s.Reloaded(summary, err)
	if err != nil {
		replyCode(w, http.StatusUnprocessableEntity, outcome)
		return
	}
	reply(w, outcome)
}

// An Upgrade describes the process that replaced this one.
type Upgrade struct {
	PID      int    `json:"pid"`
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
}

// upgradeTime limits how long an upgrade request may take.
const upgradeTime = time.Minute

// postUpgrade starts an upgrade and waits until the successor has taken over.
func (s *Server) postUpgrade(w http.ResponseWriter, r *http.Request) {
	if s.o.Upgrade == nil {
		refuse(w, http.StatusNotImplemented, errors.New("this process cannot be replaced: restart it"))
		return
	}
	leave, err := s.changes.take(r)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	defer leave()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(upgradeTime)) // fails only with the connection
	next, err := s.o.Upgrade(r.Context())
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	reply(w, next)
}

// Reloaded records the outcome of a reload, by whatever means it was requested, and returns the outcome.
func (s *Server) Reloaded(summary string, err error) Reload {
	outcome := Reload{Time: time.Now(), OK: err == nil, Summary: summary}
	text := summary
	if err != nil {
		outcome.Error = err.Error()
		text = "failed, nothing changed: " + outcome.Error
	}
	s.o.Events.Add(endpoints.Event{Time: outcome.Time, Kind: endpoints.KindReload, Text: text})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reload = &outcome
	if outcome.OK {
		s.reloadsOK++
	} else {
		s.reloadsFailed++
	}
	return outcome
}

// reloads returns the number of successful and of failed reloads.
func (s *Server) reloads() (ok, failed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reloadsOK, s.reloadsFailed
}

func (s *Server) postLogLevel(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Level string `json:"level"`
	}
	err := read(r, &body)
	if err == nil && s.o.SetLevel == nil {
		err = errors.New("the log level cannot be changed")
	}
	if err == nil {
		err = s.o.SetLevel(body.Level)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	s.o.Events.Add(endpoints.Event{Kind: endpoints.KindLogLevel, Text: "the log level is " + body.Level})
	reply(w, body)
}

// read decodes a request body, which must be one JSON object with known fields only.
func read(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the request body is invalid, see docs/api.md: %w", err)
	}
	if d.More() {
		return errors.New("the request body has more than one JSON value")
	}
	return nil
}

func reply(w http.ResponseWriter, v any) { replyCode(w, http.StatusOK, v) }

func replyCode(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(visible.NewJSONWriter(w)).Encode(v) // an error here concerns only the client's connection
}

// refuse answers with an error. Use StatusServiceUnavailable if the client should try again soon.
func refuse(w http.ResponseWriter, code int, err error) {
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	replyCode(w, code, struct {
		Error string `json:"error"`
	}{err.Error()})
}
