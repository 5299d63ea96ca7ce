package main

import (
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// A column describes a column of a table.
type column struct {
	title string
	align side
	least int  // minimum width, so that numbers that change do not move the columns
	drop  int  // the column with the highest drop goes first if there is no room; one with zero never goes
	cut   part // which part of a long text may be left out
}

// A side is where the text of a column is.
type side int

const (
	left side = iota
	right
)

// A part is what may be left out of a text that is too long.
type part int

const (
	nothing part = iota
	middle       // of a name, because names often differ only at their ends
	end          // of a sentence
)

// A table lays out rows for a terminal.
type table struct {
	columns []column
	rows    [][]string
	gap     int  // spaces between two columns
	spill   bool // a remark that does not fit gets a line of its own, instead of being cut
}

// add adds a row, which must have a cell for each column. The cells must be visible.
func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// lines returns the heading and the rows, each at most width characters long. A remark on a line of its own may be
// longer. A width of zero means without a limit, and with all columns.
func (t *table) lines(width int) (lines []string) {
	widths := t.fit(width)
	add := func(line string) {
		if line = strings.TrimRight(line, " "); width > 0 {
			line = cut(line, width)
		}
		lines = append(lines, line)
	}
	add(t.line(widths, func(i int) string { return t.columns[i].title }))
	for _, row := range t.rows {
		below := ""
		add(t.line(widths, func(i int) string {
			if t.spill && t.columns[i].cut == end && utf8.RuneCountInString(row[i]) > widths[i] {
				below = row[i]
				return ""
			}
			return row[i]
		}))
		if below != "" {
			lines = append(lines, "    "+below)
		}
	}
	return lines
}

// line returns the cells as one line. A column without a width is left out.
func (t *table) line(widths []int, cell func(i int) string) string {
	var b strings.Builder
	for i, c := range t.columns {
		if widths[i] == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(strings.Repeat(" ", t.gap))
		}
		text := cell(i)
		if c.cut == middle {
			text = cutMiddle(text, widths[i])
		}
		if c.align == right {
			text = strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(text), 0)) + text
		}
		b.WriteString(pad(text, widths[i]))
	}
	return b.String()
}

// The widths of columns that can be cut: usualNames of ten names must fit, and a few characters of each must remain.
const (
	usualNames   = 9
	leastNames   = 12
	leastRemarks = 16
)

// fit returns the width of each column, or 0 for one that is left out.
func (t *table) fit(width int) []int {
	natural, widths := t.natural()
	if width == 0 {
		return natural
	}
	for t.total(widths) > width {
		last := -1
		for i, c := range t.columns {
			if widths[i] > 0 && c.drop > 0 && (last < 0 || c.drop > t.columns[last].drop) {
				last = i
			}
		}
		if last < 0 {
			break
		}
		widths[last] = 0
	}
	for i, c := range t.columns { // there may be room for all of a column that was counted as shorter
		if spare := width - t.total(widths); spare > 0 && c.cut != nothing && widths[i] > 0 {
			widths[i] = min(natural[i], widths[i]+spare)
		}
	}
	for t.total(widths) > width {
		widest := -1
		for i, c := range t.columns {
			if c.cut == middle && widths[i] > leastNames && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

// natural returns the width of each column in which all of its texts fit, and the width to reserve before other columns
// are left out.
func (t *table) natural() (all, reserved []int) {
	for i, c := range t.columns {
		least := max(c.least, utf8.RuneCountInString(c.title))
		lengths := []int{least}
		if len(t.rows) > 0 {
			lengths = nil
		}
		for _, row := range t.rows {
			lengths = append(lengths, max(least, utf8.RuneCountInString(row[i])))
		}
		slices.Sort(lengths)
		longest := lengths[len(lengths)-1]
		usual := lengths[(len(lengths)*usualNames+9)/10-1]
		all = append(all, longest)
		switch c.cut {
		case middle:
			reserved = append(reserved, max(usual, min(longest, 2*leastNames)))
		case end:
			reserved = append(reserved, min(longest, leastRemarks))
		default:
			reserved = append(reserved, longest)
		}
	}
	return all, reserved
}

// total returns the length of a line.
func (t *table) total(widths []int) int {
	sum, columns := 0, 0
	for _, w := range widths {
		if w > 0 {
			sum, columns = sum+w, columns+1
		}
	}
	return sum + max(columns-1, 0)*t.gap
}

// write writes the table to w, fitted to it.
func (t *table) write(w io.Writer) error {
	_, err := io.WriteString(w, strings.Join(t.lines(widthOf(w)), "\n")+"\n")
	return err
}

// widthOf returns the width of the terminal that w writes to, or else $COLUMNS. It returns 0 if the width is not
// limited.
func widthOf(w io.Writer) int {
	if f := terminalOf(w); f != nil {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	width, err := strconv.Atoi(os.Getenv("COLUMNS"))
	if err != nil || width < 0 {
		return 0
	}
	return width
}

// wrap returns the parts of a text, joined by sep, in lines of at most width characters each. A width of 0 means
// without a limit.
func wrap(parts []string, sep string, width int) string {
	text, column := "", 0
	for i, part := range parts {
		if i < len(parts)-1 {
			part += sep
		}
		n := utf8.RuneCountInString(strings.TrimRight(part, " "))
		if column > 0 && width > 0 && column+n > width {
			text, column = strings.TrimRight(text, " ")+"\n", 0
		}
		text, column = text+part, column+utf8.RuneCountInString(part)
	}
	return text
}

// cutMiddle shortens s to at most width characters. It keeps the begin and the end.
func cutMiddle(s string, width int) string {
	runes := []rune(s)
	if len(runes) <= width || width < 3 {
		return cut(s, width)
	}
	tail := (width - 1) / 2
	return string(runes[:width-1-tail]) + "~" + string(runes[len(runes)-tail:])
}

// cut shortens s to at most width characters.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width, 0)])
}

// pad shortens or extends s to width characters.
func pad(s string, width int) string {
	s = cut(s, width)
	return s + strings.Repeat(" ", width-utf8.RuneCountInString(s))
}
