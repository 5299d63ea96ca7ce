package config

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// parseSyntax parses a file like hclsyntax.ParseConfig, but with better advice about blocks that are not closed on
// their first line. The parser says to close them after the first argument, which is wrong for a block with several
// arguments.
func parseSyntax(name string, src []byte) (*hcl.File, hcl.Diagnostics) {
	file, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	for _, d := range diags {
		if d.Summary == "Invalid single-argument block definition" {
			d.Summary = "Argument beside an opening brace"
			d.Detail = "A block on one line can have only one argument, and its closing brace must be on that line " +
				"too. Put each argument on a line of its own."
		}
	}
	return file, diags
}
