package daemon

import (
	"errors"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/sidecar"
)

// An event without a text says nothing to an operator.
func TestEveryReportOfAnExposedInstanceHasAText(t *testing.T) {
	texts := map[string]sidecar.What{}
	for _, what := range []sidecar.What{sidecar.Exposed, sidecar.Ended, sidecar.Refused, sidecar.Failed, sidecar.Works,
		sidecar.CutOff, sidecar.Lost} {
		text := exposedText(sidecar.Report{What: what, Err: errors.New("reason")})
		if other, is := texts[text]; is || text == "" || strings.HasPrefix(text, ":") {
			t.Errorf("%q has the text %q, and %q", what, text, other)
		}
		texts[text] = what
	}
}
