package admin

import (
	"errors"
	"fmt"
	"net"
)

// Trust says how a client comes to the socket that it asks. It decides whose process may answer there, and get the
// token. Root and the client's own user always may.
type Trust int

const (
	// Chosen is a socket that somebody has named: the owner of its folder may answer there, too.
	Chosen Trust = iota
	// Found is a socket at a usual place. The owner of its folder may answer there only if nobody but root or the
	// client's own user can have given the folder its name.
	Found
)

// A StrangerError is the error of a client whose socket is served by a user whom it does not trust. Nothing was sent.
type StrangerError struct {
	Path string
	UID  uint32 // of the process that listens
}

func (e *StrangerError) Error() string {
	return fmt.Sprintf("user %d listens there, who is neither root nor you,"+
		" and the folder does not show that the socket is theirs:"+
		" nothing was sent; to ask it nevertheless, run the command as that user", e.UID)
}

// An owner is whose a folder is, and whether others may change what is in it.
type owner struct {
	uid  uint32
	open bool
}

// trusts reports whether a process of user peer may answer a client of user self at a socket in folder, which is in
// parent.
func (t Trust) trusts(peer, self uint32, folder, parent owner) bool {
	const root = 0
	if peer == root || peer == self {
		return true
	}
	given := !parent.open && (parent.uid == root || parent.uid == self)
	return peer == folder.uid && (t == Chosen || given)
}

// checkPeer returns an error if the process that listens at path, which conn leads to, is not to be trusted. Where the
// system does not tell whose it is, every process is trusted.
func (t Trust) checkPeer(conn net.Conn, path string) error {
	peer, self, err := peerUser(conn)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("who answers there is not known: %w", err)
	}
	folder, parent, err := ownersOf(path)
	if err != nil {
		return fmt.Errorf("whose socket that is, is not known: %w", err)
	}
	if !t.trusts(peer, self, folder, parent) {
		return &StrangerError{Path: path, UID: peer}
	}
	return nil
}
