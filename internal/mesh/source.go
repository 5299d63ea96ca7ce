package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A source says where authorities and certificates come from. Consul has marked the endpoints that agent uses as
// deprecated, without a replacement so far.
//
// Both methods ask one question, which the context bounds. If the question has an index, the source answers when it has
// something newer, or when the wait is over.
type source interface {
	askRoots(ctx context.Context, q question) (roots, uint64, error)
	askLeaf(ctx context.Context, name string, q question) (leaf, uint64, error)

	// multiplexes reports whether one connection carries many questions.
	multiplexes() bool
}

// A question is a question for something newer than an index. Without an index, the answer comes at once, as far as the
// source has one.
type question struct {
	index uint64
	wait  time.Duration
}

// An answerError says that an answer came and cannot be used.
type answerError struct{ err error }

func (e *answerError) Error() string { return "consul's answer cannot be used: " + e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

// maxAnswer limits the size of an answer in bytes. A certificate with its key has about 2 KB, an authority 3 KB.
const maxAnswer = 1 << 20

// An agent is the source that asks an agent of Consul.
type agent struct {
	client *consul.Client

	mu    sync.Mutex
	sites map[string]uint64 // by path, which site has sent the last index: see consul.Answer.Site; guarded by mu
}

// site returns which site has sent the last index of a path.
func (a *agent) site(path string) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sites[path]
}

// setSite notes which site has sent the last index of a path.
func (a *agent) setSite(path string, site uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sites[path] = site
}

func (a *agent) multiplexes() bool { return a.client.Multiplexes() }

// askRoots asks for the authorities. No right is needed.
func (a *agent) askRoots(ctx context.Context, q question) (r roots, index uint64, err error) {
	var answer struct {
		TrustDomain string
		Roots       []struct {
			ID, Name, RootCert string
			Active             bool
		}
	}
	index, err = a.ask(ctx, "/v1/agent/connect/ca/roots", q, &answer)
	if err != nil {
		return roots{}, index, err
	}
	var all []savedRoot
	for _, one := range answer.Roots {
		all = append(all, savedRoot{one.ID, one.Name, one.RootCert, one.Active})
	}
	r, err = newRoots(answer.TrustDomain, all)
	return r, index, unusable(err)
}

// askLeaf asks for a certificate, which needs the right service:write for that name.
func (a *agent) askLeaf(ctx context.Context, name string, q question) (l leaf, index uint64, err error) {
	var answer struct{ CertPEM, PrivateKeyPEM string }
	index, err = a.ask(ctx, "/v1/agent/connect/ca/leaf/"+url.PathEscape(name), q, &answer)
	if err != nil {
		return leaf{}, index, err
	}
	l, err = newLeaf(name, []byte(answer.CertPEM), []byte(answer.PrivateKeyPEM), time.Now())
	return l, index, unusable(err)
}

func (a *agent) ask(ctx context.Context, path string, q question, out any) (uint64, error) {
	answer, err := a.client.Query(ctx, consul.Request{
		Path: path, Index: q.index, Site: a.site(path), Wait: q.wait,
	})
	if err != nil {
		return 0, err
	}
	defer answer.Free()
	a.setSite(path, answer.Site)
	switch {
	case len(answer.Body) > maxAnswer:
		err = fmt.Errorf("it has %d bytes", len(answer.Body))
	case consul.TooManyElements(answer.Body):
		err = consul.ErrTooManyElements
	case json.Unmarshal(answer.Body, out) != nil:
		err = errors.New("it is not the JSON of certificates") // the error of json could quote a key
	}
	return answer.Index, unusable(err)
}

// unusable returns an *answerError for err, or nil.
func unusable(err error) error {
	if err == nil {
		return nil
	}
	return &answerError{err}
}
