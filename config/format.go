package config

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format returns src in the usual layout. If src has syntax errors, it returns no text but diagnostics, which call the
// file name.
func Format(name string, src []byte) ([]byte, Diagnostics) {
	if d := unfit(name, src, new(int)); d != nil {
		s := sources{}
		s.add(name, src, nil)
		return nil, s.diagnostics(hcl.Diagnostics{d})
	}
	file, diags := parseSyntax(name, src)
	s := sources{}
	s.add(name, src, file)
	if diags.HasErrors() {
		return nil, s.diagnostics(diags)
	}
	return hclwrite.Format(src), Diagnostics{}
}
