package config

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// A block reads the arguments of one body. Its methods report an invalid argument and return the default, so that all
// other arguments are checked too. An argument that is null counts as absent.
type block struct {
	l      *loader
	path   []string // the types of the blocks around it and its own, outermost first; empty for the file
	attrs  hcl.Attributes
	blocks hcl.Blocks
	head   hcl.Range // where problems about missing arguments point to

	misspelt []string // suggested names of the arguments that the schema does not know
}

// inner decodes a block inside b by its schema.
func (b *block) inner(at *hcl.Block, schema *hcl.BodySchema) *block {
	return b.l.open(append(slices.Clip(b.path), at.Type), at.Body, schema, at.DefRange)
}

// open decodes a body by its schema, and reports arguments and blocks that the schema does not have. The path becomes
// that of the block.
func (l *loader) open(path []string, body hcl.Body, schema *hcl.BodySchema, head hcl.Range) *block {
	content, diags := body.Content(schema)
	b := &block{l: l, path: path, attrs: content.Attributes, blocks: content.Blocks, head: head}
	for _, d := range diags {
		switch {
		case strings.HasPrefix(d.Summary, "Unsupported"):
			b.misspelt = append(b.misspelt, suggest(d, schema, path)...)
		case strings.HasSuffix(d.Summary, " for service"):
			d.Detail = "A service has exactly one name. Write service \"web\" { ... }"
		case strings.HasSuffix(d.Summary, " for expose"):
			d.Detail = "An expose block has exactly one name, that of a service in Consul. Write expose \"web\" { ... }"
		}
	}
	l.diags = append(l.diags, diags...)
	return b
}

// suggest adds to a problem about an unknown argument or block what the user probably means. It returns the names of
// that.
func suggest(d *hcl.Diagnostic, schema *hcl.BodySchema, path []string) []string {
	quoted := strings.Split(d.Detail, `"`)
	if len(quoted) > 1 {
		if text, meant := elsewhere(quoted[1], path); text != "" {
			known, _, _ := strings.Cut(d.Detail, " Did you mean ")
			d.Detail = known + text
			return meant
		}
	}
	_, meant, found := strings.Cut(d.Detail, "Did you mean ")
	if !found {
		d.Detail += " Expected here: " + strings.Join(schemaNames(schema), ", ") + "."
		return nil
	}
	return []string{strings.Trim(meant, `"?`)}
}

// missing reports that a required argument is absent. It reports nothing if the argument is present but misspelt,
// because open has reported that.
func (b *block) missing(name, detail string, args ...any) {
	if !slices.Contains(b.misspelt, name) {
		b.l.problem(b.head.Ptr(), "Missing argument", detail, args...)
	}
}

func schemaNames(schema *hcl.BodySchema) []string {
	var names []string
	for _, a := range schema.Attributes {
		names = append(names, a.Name)
	}
	for _, b := range schema.Blocks {
		names = append(names, b.Type+" {}")
	}
	return names
}

// single opens the block of a type that may be present once. It returns nil if there is none, and reports any further
// one.
func (b *block) single(blockType string, schema *hcl.BodySchema) *block {
	var first *hcl.Block
	for _, inner := range b.blocks.OfType(blockType) {
		if first != nil {
			b.l.problem(inner.DefRange.Ptr(), "Duplicate block",
				"There is already %s %s block, at %s. Put all arguments into one block.", article(blockType), blockType,
				place(first.DefRange))
			b.inner(inner, schema)
			continue
		}
		first = inner
	}
	if first == nil {
		return nil
	}
	return b.inner(first, schema)
}

func article(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an"
	}
	return "a"
}

// rangeOf returns where the value of an argument is. Without the argument it returns the block's header.
func (b *block) rangeOf(name string) *hcl.Range {
	if attr := b.attrs[name]; attr != nil {
		return attr.Expr.Range().Ptr()
	}
	return b.head.Ptr()
}

// value evaluates an argument. It returns false if the argument is absent or was reported.
func (b *block) value(name string, want cty.Type, hint string) (cty.Value, bool) {
	attr := b.attrs[name]
	if attr == nil {
		return cty.NilVal, false
	}
	return b.l.evaluate(name, attr.Expr, want, hint)
}

// evaluate turns an expression into a value of the wanted type. A number is not accepted as text: it is probably a
// mistake, and to convert a number such as 1e999999999 would take for ever. Messages must not contain the value,
// because it may be a secret.
func (l *loader) evaluate(name string, expr hcl.Expression, want cty.Type, hint string) (cty.Value, bool) {
	if len(expr.Variables()) > 0 {
		l.problem(expr.Range().Ptr(), "Text without quotes", "A configuration has no variables. %s: %s.", name, hint)
		return cty.NilVal, false
	}
	v, diags := expr.Value(nil)
	l.diags = append(l.diags, diags...)
	if diags.HasErrors() {
		return cty.NilVal, false
	}
	if v.IsNull() {
		return cty.NilVal, false
	}
	if want == cty.String && v.Type() != cty.String {
		l.problem(expr.Range().Ptr(), "Wrong type", "%s: %s.", name, hint)
		return cty.NilVal, false
	}
	if want != cty.DynamicPseudoType {
		converted, err := convert.Convert(v, want)
		if err != nil || !converted.IsKnown() {
			l.problem(expr.Range().Ptr(), "Wrong type", "%s: %s.", name, hint)
			return cty.NilVal, false
		}
		v = converted
	}
	if v.Type() == cty.String && len(v.AsString()) > maxText {
		l.tooLong(name, expr.Range().Ptr(), len(v.AsString()), maxText)
		return cty.NilVal, false
	}
	return v, true
}

// Bounds of text, in bytes. Logs, metrics and the API repeat text of the configuration.
const (
	maxText       = 65507 // any text: the largest datagram
	maxConsulName = 255   // a name in Consul
	maxFilter     = 8192
	maxTags       = 64 // number of tags of a query
)

// tooLong reports text that is longer than its bound.
func (l *loader) tooLong(name string, at *hcl.Range, bytes, most int) {
	l.problem(at, "Text too long", "%s: %d bytes are too many. Write at most %d.", name, bytes, most)
}

// shortText reads a string of at most most bytes.
func (b *block) shortText(name string, most int) (string, bool) {
	v, ok := b.text(name)
	if ok && len(v) > most {
		b.l.tooLong(name, b.rangeOf(name), len(v), most)
		return "", false
	}
	return v, ok
}

// isDots reports whether name is "." or "..". A URL cannot contain such a name, because in a path it means a folder.
func isDots(name string) bool { return name == "." || name == ".." }

// pathText reads a string of at most most bytes that becomes part of a URL's path.
func (b *block) pathText(name string, most int) (string, bool) {
	v, ok := b.shortText(name, most)
	if ok && isDots(v) {
		b.l.problem(b.rangeOf(name), "Bad name", "%s: a request to Consul cannot contain the name %q. "+
			"Choose another name.", name, v)
		return "", false
	}
	return v, ok
}

// text reads a string. An empty string is an error.
func (b *block) text(name string) (string, bool) {
	v, ok := b.value(name, cty.String, "write text in quotes")
	if !ok {
		return "", false
	}
	if strings.TrimSpace(v.AsString()) == "" {
		b.l.problem(b.rangeOf(name), "Empty value", "%s is empty. Give it a value, or leave it out.", name)
		return "", false
	}
	return v.AsString(), true
}

// boolean reads true or false. It returns def if the argument is absent or was reported.
func (b *block) boolean(name string, def bool) bool {
	v, ok := b.value(name, cty.Bool, "write true or false")
	if !ok {
		return def
	}
	return v.True()
}

func (b *block) oneOf(name, def string, valid []string) string {
	v, ok := b.text(name)
	if !ok {
		return def
	}
	if _, err := indexOf(v, valid); err != nil {
		what := strings.TrimPrefix(strings.ReplaceAll(name, "_", " "), "unknown ")
		b.l.problem(b.rangeOf(name), "Unknown "+what, "%v.", err)
		return def
	}
	return v
}

// integer reads a whole number from least to most, both included.
func (b *block) integer(name string, def, least, most int) int {
	return b.number(name, def, least, most, numberHint(least, most))
}

func numberHint(least, most int) string {
	return fmt.Sprintf("write a whole number from %d to %d", least, most)
}

// number reads a whole number from least to most. If the number is invalid, hint says what to write.
func (b *block) number(name string, def, least, most int, hint string) int {
	v, ok := b.value(name, cty.Number, hint)
	if !ok {
		return def
	}
	n, accuracy := v.AsBigFloat().Int64()
	if accuracy != big.Exact || n < int64(least) || n > int64(most) {
		b.l.problem(b.rangeOf(name), "Number out of range", "%s: %s.", name, hint)
		return def
	}
	return int(n)
}

// percent reads a percentage from "0%" to "100%". It returns Off for "0%".
func (b *block) percent(name string, def int) int {
	const hint = `write a percentage in quotes, from "0%" to "100%"`
	v, ok := b.value(name, cty.String, hint)
	if !ok {
		return def
	}
	digits, isPercentage := strings.CutSuffix(v.AsString(), "%")
	n, err := strconv.Atoi(digits)
	if !isPercentage || err != nil || n < 0 || n > 100 {
		b.l.problem(b.rangeOf(name), "Bad percentage", "%s: %s.", name, hint)
		return def
	}
	return orOff(n)
}

const durationHint = `write a duration in quotes with its unit, such as "500ms", "10s" or "1h30m"`

// duration reads a duration, which may be zero. If the argument is absent or was reported, it returns def and false.
// hint says what to write.
func (b *block) duration(name string, def time.Duration, hint string) (time.Duration, bool) {
	v, ok := b.value(name, cty.DynamicPseudoType, hint)
	if !ok {
		return def, false
	}
	if v.Type() == cty.Number {
		b.l.problem(b.rangeOf(name), "Duration without a unit", "%s: %s.", name, hint)
		return def, false
	}
	if v.Type() != cty.String {
		b.l.problem(b.rangeOf(name), "Wrong type", "%s: %s.", name, hint)
		return def, false
	}
	text := v.AsString()
	d, err := time.ParseDuration(text)
	switch {
	case err != nil && isNumber(text):
		b.l.problem(b.rangeOf(name), "Duration without a unit",
			"%s: %q has no unit. Write %q for seconds, or another unit: ms, m, h.", name, text, text+"s")
	case err != nil && isLongDuration(text):
		b.tooLong(name, text)
	case err != nil:
		b.l.problem(b.rangeOf(name), "Bad duration",
			"%s: %q is not a duration: %s. The units are ms, s, m and h.", name, text, hint)
	case d < 0:
		b.l.problem(b.rangeOf(name), "Bad duration",
			"%s: %q is negative. Write a duration such as %q.", name, text, cmp.Or(def, 10*time.Second))
	default:
		return d, true
	}
	return def, false
}

// tooLong reports a duration that a time.Duration cannot hold.
func (b *block) tooLong(name, text string) {
	b.l.problem(b.rangeOf(name), "Bad duration",
		"%s: %q is too long. The longest duration is %dh, about 292 years.", name, text, maxHours)
}

// maxHours is the number of whole hours in the longest time.Duration.
const maxHours = int64(math.MaxInt64 / time.Hour)

// isLongDuration reports whether text has the form of a duration, even if a time.Duration cannot hold it.
func isLongDuration(text string) bool {
	isDigit := func(r rune) bool { return '0' <= r && r <= '9' }
	small := strings.Builder{} // text with each number replaced by 0
	for i, r := range text {
		if !isDigit(r) {
			small.WriteRune(r)
		} else if i == 0 || !isDigit(rune(text[i-1])) {
			small.WriteByte('0')
		}
	}
	_, err := time.ParseDuration(small.String())
	return err == nil
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789.") == ""
}

// items returns the elements of a list, each with its own range. It reports a value that is not written as a list
// ([...]).
func (b *block) items(name, example string) []hcl.Expression {
	attr := b.attrs[name]
	if attr == nil || isNull(attr.Expr) {
		return nil
	}
	exprs, diags := hcl.ExprList(attr.Expr)
	if diags.HasErrors() {
		b.l.problem(b.rangeOf(name), "Wrong type", "%s: write a list, such as %s.", name, example)
	}
	return exprs
}

func isNull(expr hcl.Expression) bool {
	literal, ok := expr.(*hclsyntax.LiteralValueExpr)
	return ok && literal.Val.IsNull()
}

// place returns where a range starts, as file:line.
func place(r hcl.Range) string { return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line) }
