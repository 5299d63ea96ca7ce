package accesslog

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// A disk that is full, has some space and is full again causes a few log lines, and then two a minute.
func TestTroublesThatComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		x := trouble{log: hclog.New(&hclog.LoggerOptions{Output: &log})}
		said := func() (began, ended int) {
			return strings.Count(log.String(), "cannot be written"), strings.Count(log.String(), "written again")
		}
		for range 100 {
			x.began(errors.New("no space left"))
			x.ended()
		}
		if began, ended := said(); began != linesAtOnce || ended != linesAtOnce {
			t.Errorf("got %d and %d lines, want %d of each", began, ended, linesAtOnce)
		}
		x.began(errors.New("no space left"))
		if began, _ := said(); began != linesAtOnce || !x.is() {
			t.Errorf("got %d lines, want %d, and a trouble", began, linesAtOnce)
		}
		time.Sleep(lineEvery)
		for range 10 { // the trouble continues
			x.began(errors.New("no space left"))
		}
		if began, _ := said(); began != linesAtOnce+1 {
			t.Errorf("got %d lines after a while, want one more than %d", began, linesAtOnce)
		}
	})
}
