package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// DrainRequest is the request body of /v1/services/{name}/drain and undrain. For and Force are for a drain only.
type DrainRequest struct {
	Endpoint string `json:"endpoint"`
	For      string `json:"for,omitempty"`    // as time.ParseDuration reads it; empty: until undrained
	Reason   string `json:"reason,omitempty"` // one line
	User     string `json:"user,omitempty"`   // see userOf
	Force    bool   `json:"force,omitempty"`
}

// DrainAnswer is the response body of /v1/services/{name}/drain and undrain.
type DrainAnswer struct {
	OK        bool       `json:"ok"`
	DrainedBy string     `json:"drained_by,omitempty"`
	Until     *time.Time `json:"until,omitempty"`
}

// These constants limit texts of an operator, in bytes.
const (
	maxReason = 256
	maxUser   = 64
)

func (s *Server) drain(w http.ResponseWriter, r *http.Request) {
	q, o, err := s.readDrain(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	service := r.PathValue("name")
	if !o.Force {
		if o.Failing, err = s.failing(r.Context(), service); err != nil {
			refuse(w, http.StatusServiceUnavailable, err)
			return
		}
	}
	d, err := s.o.State.Sets.Drain(service, q.Endpoint, o)
	if err != nil {
		code := http.StatusNotFound
		if errors.Is(err, endpoints.ErrLastUsable) {
			code = http.StatusConflict
		}
		refuse(w, code, err)
		return
	}
	reply(w, DrainAnswer{OK: true, DrainedBy: d.By, Until: known(d.Until)})
}

func (s *Server) undrain(w http.ResponseWriter, r *http.Request) {
	q, o, err := s.readDrain(r)
	if err == nil && (q.For != "" || q.Force) {
		err = errors.New("for and force are for a drain only")
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if err := s.o.State.Sets.Undrain(r.PathValue("name"), q.Endpoint, o.By, o.Reason); err != nil {
		refuse(w, http.StatusNotFound, err)
		return
	}
	reply(w, DrainAnswer{OK: true})
}

// readDrain decodes and checks the body of r. The order has no Failing.
func (s *Server) readDrain(r *http.Request) (q DrainRequest, o endpoints.Order, err error) {
	if err = read(r, &q); err != nil {
		return q, o, err
	}
	o = endpoints.Order{Reason: strings.TrimSpace(q.Reason), Force: q.Force}
	if err = errors.Join(checkText("reason", o.Reason, maxReason), checkText("user", q.User, maxUser)); err != nil {
		return q, o, err
	}
	if q.For != "" {
		if o.For, err = time.ParseDuration(q.For); err != nil || o.For <= 0 {
			return q, o, fmt.Errorf("for=%q is not a duration above zero, such as 90s, 10m or 2h", q.For)
		}
	}
	o.By = s.userOf(r, q.User)
	return q, o, nil
}

// checkText returns an error if the text of a field is too long or has invisible characters, such as line feeds.
func checkText(field, text string, most int) error {
	switch {
	case len(text) > most:
		return fmt.Errorf("%s is too long: %d bytes, of at most %d", field, len(text), most)
	case visible.Text(text) != text:
		return fmt.Errorf("%s must be one line of visible characters", field)
	}
	return nil
}

// failing returns the IDs of a service's endpoints that get no clients because they fail. failing waits for its turn,
// but returns errBusy if the turn does not come soon.
func (s *Server) failing(ctx context.Context, service string) (ids map[string]bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.times.turn)
	defer cancel()
	err = errBusy
	s.work.do(ctx, func() {
		ids, err = map[string]bool{}, nil
		one, _ := s.o.State.service(service)
		for i := range one.Endpoints {
			if e := &one.Endpoints[i]; e.Reason == ReasonEjected || e.Reason == ReasonTrial {
				ids[e.ID] = e.State == StateOut
			}
		}
	})
	return ids, err
}
