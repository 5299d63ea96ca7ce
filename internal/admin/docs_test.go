package admin

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/proxy"
)

// TestAPIIsDocumented holds docs/api.md against the routes and the fields of answers.
func TestAPIIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var served, documented []string
	for _, r := range New(Options{}).routes() {
		if r.path != "/{$}" && !strings.Contains(r.path, ".") { // but for the page
			served = append(served, r.method+" "+r.path)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^### `(.*)`$").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, m[1])
	}
	if !slices.Equal(served, documented) {
		t.Errorf("served:     %v\ndocumented: %v", served, documented)
	}
	for _, v := range []any{Status{}, Service{}, Endpoint{}, EndpointCounters{}, Counters{}, Descriptors{}, Event{}, Reload{}, Denied{}, ServicesAnswer{}, ExcludedAnswer{}, HistoryAnswer{}, Sample{}, EventsAnswer{}, Connection{}, ConnectionsAnswer{}, Upgrade{}, changes{}} {
		for f := range fields(reflect.TypeOf(v)) {
			if !strings.Contains(string(text), "`"+f+"`") && !strings.Contains(string(text), `"`+f+`":`) {
				t.Errorf("%T: %s is not in docs/api.md", v, f)
			}
		}
	}
	for _, kind := range []string{KindJoined, KindLeft, KindChanged, KindOut, KindHeld, KindEjected, KindReturned, KindDrained, KindUndrained, KindStale, KindRecovered, KindReload, KindUpgrade, KindLogLevel, ReasonHealthy, ReasonHeld, ReasonSaved, ReasonSlowStart, ReasonTroubled, ReasonDrained, ReasonStandby, ReasonStatus, ReasonMaintenance,
		ReasonAddress, ReasonDuplicate, ReasonTags, ReasonFilter, ReasonWeight, ReasonEjected, ReasonTrial, ReasonFull,
		ReasonLoop, string(proxy.ConnectionWaiting), string(proxy.ConnectionConnecting), string(proxy.ConnectionOpen), string(proxy.ConnectionHalfClosed),
		string(proxy.ConnectionClosing), SetNone, SetSaved, SetFresh} {
		if !strings.Contains(string(text), "`"+kind+"`") {
			t.Errorf("%s is not in docs/api.md", kind)
		}
	}
}

func fields(t reflect.Type) func(func(string) bool) {
	return func(yield func(string) bool) {
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if !yield(name) {
				return
			}
		}
	}
}
