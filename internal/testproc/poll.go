package testproc

import (
	"context"
	"fmt"
	"time"
)

// Poll calls check, every 5 ms, until it returns nil or ctx ends; then it returns what check said last.
func Poll(ctx context.Context, check func() error) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w, after the last: %w", ctx.Err(), err)
		}
	}
}
