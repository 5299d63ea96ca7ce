package admin

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/proxy"
)

// TestAPIIsDocumented compares docs/api.md with the routes and with the fields of answers.
func TestAPIIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var served, documented []string
	for _, r := range New(Options{}).routes() {
		if r.path != "/{$}" && !strings.Contains(r.path, ".") { // the page's files are not part of the API
			served = append(served, r.method+" "+r.path)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^### `(.*)`$").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, m[1])
	}
	if !slices.Equal(served, documented) {
		t.Errorf("served:     %v\ndocumented: %v", served, documented)
	}
	for _, v := range []any{Status{}, Service{}, Endpoint{}, Near{}, HostName{}, EndpointCounters{}, Counters{},
		Descriptors{}, Event{}, Reload{}, Reason{}, Denied{}, ServicesAnswer{}, ExcludedAnswer{}, HistoryAnswer{},
		Sample{}, EventsAnswer{}, Unserved{},
		Connection{}, ConnectionsAnswer{}, Upgrade{}, Pending{}, changes{}, Mesh{}, MeshRoot{}, Identity{},
		Exposed{}, ExposedInstance{}, ExposedClient{}, UnexposedService{}, Intentions{}, Intention{}, ExplainedAccess{},
		AccessRoute{}, Path{}, KernelCounters{}} {
		for f := range fields(reflect.TypeOf(v)) {
			if !strings.Contains(string(text), "`"+f+"`") && !strings.Contains(string(text), `"`+f+`":`) {
				t.Errorf("%T: %s is not in docs/api.md", v, f)
			}
		}
	}
	kinds := []endpoints.Kind{
		endpoints.KindJoined, endpoints.KindLeft, endpoints.KindChanged, endpoints.KindOut, endpoints.KindHeld,
		endpoints.KindEjected, endpoints.KindReturned, endpoints.KindDrained, endpoints.KindUndrained,
		endpoints.KindStale, endpoints.KindRecovered, endpoints.KindReload, endpoints.KindUpgrade,
		endpoints.KindExposed, endpoints.KindForbidden, endpoints.KindLogLevel, endpoints.KindDenied,
		endpoints.KindAllowed,
	}
	words := []string{
		ReasonHealthy, ReasonHeld, ReasonSaved, ReasonSlowStart, ReasonTroubled, ReasonDrained, ReasonStandby,
		ReasonStatus, ReasonMaintenance, ReasonAddress, ReasonDuplicate, ReasonTags, ReasonFilter, ReasonWeight,
		ReasonEjected, ReasonTrial, ReasonFull, ReasonCheck, ReasonLoop,
		string(proxy.ConnectionWaiting),
		string(proxy.ConnectionConnecting), string(proxy.ConnectionOpen), string(proxy.ConnectionHalfClosed),
		string(proxy.ConnectionClosing), SetNone, SetSaved, SetFresh,
		StateFine, StateDegraded, StateRefusing, KindNoEndpoint, KindFull, KindRetries, KindFailing, KindDescriptors,
		KindStale, KindUnconfirmed, KindHidden, KindHeld, KindEjected, KindDrained, KindPanic, KindFailover, KindNames,
		KindPending, KindReload, KindCertificate, KindIdentity, KindDenied,
		IdentityFine, IdentityFailing, IdentityExpiring, IdentityWaiting, IdentityExpired,
		ExposedFine, ExposedFailing, ExposedWaiting, ExposedNone, KindPermissive, KindExposed,
	}
	for _, kind := range kinds {
		words = append(words, string(kind))
	}
	for _, word := range words {
		if !strings.Contains(string(text), "`"+word+"`") {
			t.Errorf("%s is not in docs/api.md", word)
		}
	}
}

func fields(t reflect.Type) func(func(string) bool) {
	return func(yield func(string) bool) {
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if name != "-" && !yield(name) {
				return
			}
		}
	}
}
