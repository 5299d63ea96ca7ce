package config

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format returns src in the usual layout. Name is for the diagnostics, which are syntax errors; there is no layout
// then.
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
