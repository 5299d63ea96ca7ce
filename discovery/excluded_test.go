package discovery

import "testing"

func TestExcludedBySaysWhatIsMissing(t *testing.T) {
	tests := []struct {
		name     string
		query    Query
		has      []string
		want     Out
		wantText string
	}{
		{"a tag", Query{Tags: []string{"V2"}}, []string{"v1"}, OutTags, `it does not have the tag "v2"`},
		{"one of two", Query{Tags: []string{"a", "b"}}, []string{"B", "c"}, OutTags, `it does not have the tag "a"`},
		{"several", Query{Tags: []string{"b", "a"}}, nil, OutTags, `it does not have the tags ["a" "b"]`},
		{"the tags before the filter", Query{Tags: []string{"a"}, Filter: "x == y"}, nil, OutTags,
			`it does not have the tag "a"`},
		{"the filter", Query{Tags: []string{"A"}, Filter: "x ==\n y"}, []string{"a"}, OutFilter,
			"it does not pass the filter x == y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := tt.query.normalize("")
			if got, text := excludedBy(&q, tt.has); got != tt.want || text != tt.wantText {
				t.Errorf("got %s, %s, want %s, %s", got, text, tt.want, tt.wantText)
			}
		})
	}
}
