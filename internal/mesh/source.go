package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A source says where authorities, certificates and intentions come from. Consul has marked the endpoints that agent
// uses for the first two as deprecated, without a replacement so far.
//
// Each method asks one question, which the context bounds. If the question has an index, the source answers when it has
// something newer, or when the wait is over.
type source interface {
	askRoots(ctx context.Context, q question) (roots, uint64, error)
	askLeaf(ctx context.Context, name string, q question) (leaf, uint64, error)

	// askIntentions asks for the intentions with a destination. former is its last answer; nil: there was none.
	askIntentions(ctx context.Context, of string, q question, former *rules) (*rules, uint64, error)

	// multiplexes reports whether one connection carries many questions.
	multiplexes() bool
}

// A question is a question for something newer than an index. Without an index, the answer comes at once, as far as the
// source has one.
type question struct {
	index uint64
	wait  time.Duration
	notes *notes // never nil
}

// Notes are what a source keeps from one question of a follower to its next one. Only the source uses them.
type notes struct {
	site     uint64    // consul.Answer.Site of the last answer
	policyAt time.Time // when the agent last said its default policy; zero: never
}

// An answerError says that an answer came and cannot be used.
type answerError struct{ err error }

func (e *answerError) Error() string { return "consul's answer cannot be used: " + e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

// maxAnswer limits the size of an answer about certificates in bytes. A certificate with its key has about 2 KB, an
// authority 3 KB.
const maxAnswer = 1 << 20

// An agent is the source that asks an agent of Consul.
type agent struct{ client *consul.Client }

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
	head, err := a.ask(ctx, "/v1/agent/connect/ca/roots", nil, q, maxAnswer, &answer)
	if err != nil {
		return roots{}, head.index, err
	}
	var all []savedRoot
	for _, one := range answer.Roots {
		all = append(all, savedRoot{one.ID, one.Name, one.RootCert, one.Active})
	}
	r, err = newRoots(answer.TrustDomain, all)
	return r, head.index, unusable(err)
}

// askLeaf asks for a certificate, which needs the right service:write for that name.
func (a *agent) askLeaf(ctx context.Context, name string, q question) (l leaf, index uint64, err error) {
	var answer struct{ CertPEM, PrivateKeyPEM string }
	head, err := a.ask(ctx, "/v1/agent/connect/ca/leaf/"+url.PathEscape(name), nil, q, maxAnswer, &answer)
	if err != nil {
		return leaf{}, head.index, err
	}
	l, err = newLeaf(name, []byte(answer.CertPEM), []byte(answer.PrivateKeyPEM), time.Now())
	return l, head.index, unusable(err)
}

// A head is what an answer has besides its body.
type head struct {
	index  uint64
	denies bool // the default policy of ACLs is to deny
}

// ask asks a question, and decodes the answer of at most most bytes into out.
func (a *agent) ask(
	ctx context.Context, path string, values url.Values, q question, most int, out any,
) (head, error) {
	answer, err := a.client.Query(ctx, consul.Request{
		Path: path, Values: values, Index: q.index, Site: q.notes.site, Wait: q.wait,
	})
	if err != nil {
		return head{}, err
	}
	defer answer.Free()
	q.notes.site = answer.Site
	switch {
	case len(answer.Body) > most:
		err = fmt.Errorf("it has %d bytes", len(answer.Body))
	case consul.TooManyElements(answer.Body):
		err = consul.ErrTooManyElements
	case json.Unmarshal(answer.Body, out) != nil:
		err = errors.New("it is not the JSON that was asked for") // the error of json could quote a key
	}
	return head{answer.Index, answer.Denies}, unusable(err)
}

// unusable returns an *answerError for err, or nil.
func unusable(err error) error {
	if err == nil {
		return nil
	}
	return &answerError{err}
}
