package daemon

import "testing"

// The shares must match the table in docs/operations.md.
func TestDescriptorsAreShared(t *testing.T) {
	for _, tt := range []struct {
		limit, rest int64
		forAdmin    int
	}{
		{0, 0, 64}, // unknown limit
		{1, 1, 8},  // nothing can be served, but the limit is not taken for unknown
		{64, 56, 8},
		{256, 240, 16},
		{1024, 960, 64},
		{20000, 19936, 64},
	} {
		if forAdmin, rest := shareDescriptors(tt.limit); forAdmin != tt.forAdmin || rest != tt.rest {
			t.Errorf("%d: got %d and %d, want %d and %d", tt.limit, forAdmin, rest, tt.forAdmin, tt.rest)
		}
	}
}
