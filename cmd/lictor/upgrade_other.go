//go:build !unix

package main

import (
	"context"
	"errors"
	"os"

	"github.com/lictor-proxy/lictor/internal/admin"
)

// upgradeSignal does not come here.
var upgradeSignal os.Signal = os.Kill

// Upgrade needs to pass open sockets to another process.
func (d *daemon) Upgrade(context.Context) (admin.Upgrade, error) {
	return admin.Upgrade{}, errors.New("an upgrade without a restart needs a Unix system")
}

func dialPredecessor(int) (messenger, error) { return nil, errors.ErrUnsupported }
