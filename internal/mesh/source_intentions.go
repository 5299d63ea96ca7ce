package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// maxIntentions limits the size of an answer about intentions in bytes. An intention has about 400 bytes, and more if
// it is about requests.
const maxIntentions = 8 << 20

// policyEvery is how often the default policy of an agent is asked for while questions go on.
const policyEvery = 30 * time.Second

// An apiIntention is an intention as Consul's API gives it.
type apiIntention struct {
	SourceNS, SourceName, SourcePartition, SourcePeer, DestinationName, Action string

	Permissions []struct{}
	JWT         *struct{}
	Precedence  int
}

// intention returns the Intention. It is an error if it is not for connections to the destination of.
func (a *apiIntention) intention(of string) (Intention, error) {
	if a.SourceName == "" || a.DestinationName != anyName && !strings.EqualFold(a.DestinationName, of) {
		return Intention{}, fmt.Errorf("it has an intention %q -> %q", a.SourceName, a.DestinationName)
	}
	i := Intention{Source: a.SourceName, SourceNamespace: a.SourceNS, SourcePartition: a.SourcePartition,
		SourcePeer: a.SourcePeer, Destination: a.DestinationName, Precedence: a.Precedence,
		L7: len(a.Permissions) > 0 || a.JWT != nil}
	i.Allow = a.Action == "allow" && !i.L7
	return i, nil
}

// askIntentions asks for the intentions of a destination, which needs the right intention:read for it. The right
// service:read includes that.
func (a *agent) askIntentions(ctx context.Context, of string, q question, former *rules) (*rules, uint64, error) {
	var answer map[string]json.RawMessage
	values := url.Values{"by": {"destination"}, "name": {of}}
	head, err := a.ask(ctx, "/v1/connect/intentions/match", values, q, maxIntentions, &answer)
	if err != nil {
		return nil, head.index, err
	}
	all, err := intentionsIn(answer[of], of)
	if err != nil {
		return nil, head.index, unusable(err)
	}
	r := newRules(all, !head.denies)
	if r.allow, err = a.defaultPolicy(ctx, of, r, q, former); err != nil {
		return nil, head.index, err
	}
	return r, head.index, nil
}

// intentionsIn returns the intentions of a destination in an answer.
func intentionsIn(text []byte, of string) ([]Intention, error) {
	var given []apiIntention
	switch {
	case text == nil:
		return nil, fmt.Errorf("it is not about the intentions of %q", of)
	case consul.TooManyElements(text):
		return nil, consul.ErrTooManyElements
	case json.Unmarshal(text, &given) != nil:
		return nil, errors.New("it is not the JSON of intentions")
	}
	all := make([]Intention, 0, len(given))
	for n := range given {
		one, err := given[n].intention(of)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// defaultPolicy returns whether a client may connect that no intention is about. It is a setting of the agent, which
// does not change while the agent runs. So it is enough to ask again when questions begin anew, and sometimes: new
// intentions need not wait for it.
//
// A header of the answer has the default policy of ACLs, but the setting default_intention_policy comes first, and only
// an answer about a client shows it. So defaultPolicy asks about a client that no intention can be about: its namespace
// does not exist. That needs service:write, as the certificate of the destination does. Without that right, the header
// must do.
func (a *agent) defaultPolicy(ctx context.Context, of string, r *rules, q question, former *rules) (bool, error) {
	last := q.notes.policyAt
	if former != nil && q.index != 0 && (time.Since(last) < policyEvery || !slices.Equal(r.all, former.all)) {
		return former.allow, nil
	}
	var answer struct {
		Authorized bool
		Reason     string
	}
	about := map[string]string{"Target": of, "ClientCertSerial": "00",
		"ClientCertURI": "spiffe://lictor.invalid/ns/lictor.invalid/dc/lictor.invalid/svc/lictor"}
	err := a.client.Call(ctx, http.MethodPost, "/v1/agent/connect/authorize", nil, about, &answer)
	if err != nil && consul.KindOf(err) < consul.Denied && !consul.IsNotFound(err) {
		return false, err
	}
	q.notes.policyAt = time.Now()
	switch {
	case err == nil && strings.HasPrefix(answer.Reason, "Default "):
		return answer.Authorized, nil
	case former != nil:
		return former.allow, nil
	}
	return r.allow, nil
}
