package config

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// parseSyntax is hclsyntax.ParseConfig with other advice about blocks that are not closed on their first line. The
// parser says to close them after the first argument, which is wrong for a block with more than one.
func parseSyntax(name string, src []byte) (*hcl.File, hcl.Diagnostics) {
	file, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	for _, d := range diags {
		if d.Summary == "Invalid single-argument block definition" {
			d.Summary = "Block that begins as one line"
			d.Detail = "An argument can be on the line of the opening brace only if it is the block's only one, and " +
				"the closing brace is on that line too. " +
				"Put the first argument on a line of its own, and so each further one."
		}
	}
	return file, diags
}
