package config

import (
	"encoding/json"
	"io"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/internal/visible"
)

// The types below have the shape of the output of `terraform validate -json`.

type jsonReport struct {
	FormatVersion string           `json:"format_version"`
	Valid         bool             `json:"valid"`
	ErrorCount    int              `json:"error_count"`
	WarningCount  int              `json:"warning_count"`
	Diagnostics   []jsonDiagnostic `json:"diagnostics"`
}

type jsonDiagnostic struct {
	Severity string       `json:"severity"` // "error" or "warning"
	Summary  string       `json:"summary"`
	Detail   string       `json:"detail"`
	Range    *jsonRange   `json:"range,omitempty"` // absent if the problem is in no file
	Snippet  *jsonSnippet `json:"snippet,omitempty"`
}

type jsonRange struct {
	Filename string  `json:"filename"`
	Start    jsonPos `json:"start"`
	End      jsonPos `json:"end"`
}

type jsonPos struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}

type jsonSnippet struct {
	Context              *string `json:"context"` // null outside of blocks
	Code                 string  `json:"code"`
	StartLine            int     `json:"start_line"`
	HighlightStartOffset int     `json:"highlight_start_offset"` // in bytes of Code
	HighlightEndOffset   int     `json:"highlight_end_offset"`
}

// WriteJSON writes one JSON object in the shape of the output of `terraform validate -json`.
func (d Diagnostics) WriteJSON(w io.Writer) error {
	report := jsonReport{FormatVersion: "1.0", Valid: !d.HasErrors(), Diagnostics: []jsonDiagnostic{}}
	for _, diag := range d.Diagnostics {
		jd := jsonDiagnostic{Severity: "error", Summary: diag.Summary, Detail: diag.Detail}
		if diag.Severity == hcl.DiagWarning {
			jd.Severity = "warning"
			report.WarningCount++
		} else {
			report.ErrorCount++
		}
		if s := d.files.snippet(diag.Subject); s != nil {
			jd.Range = &jsonRange{Filename: s.at.Filename, Start: jsonPos(s.at.Start), End: jsonPos(s.at.End)}
			jd.Snippet = &jsonSnippet{Code: s.code, StartLine: s.at.Start.Line, HighlightStartOffset: s.from,
				HighlightEndOffset: s.to}
			if s.context != "" {
				jd.Snippet.Context = &s.context
			}
		}
		report.Diagnostics = append(report.Diagnostics, jd)
	}
	enc := json.NewEncoder(visible.NewJSONWriter(w))
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(report)
}
