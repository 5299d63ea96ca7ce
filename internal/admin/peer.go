package admin

import (
	"errors"
	"fmt"
	"net"
)

// Trust says how a client learned the path of the socket. Trust decides which users' processes may answer there and
// receive the token. The processes of root and of the client's own user are always trusted.
type Trust int

const (
	// Chosen is for a socket that a user named: the owner of the socket's folder is trusted too.
	Chosen Trust = iota
	// Found is for a socket at a default path. The owner of the folder is trusted only if root or the client's own user
	// must have made the folder.
	Found
)

// A StrangerError says that an untrusted user serves the socket. The client sent nothing.
type StrangerError struct {
	Path string
	UID  uint32 // of the listening process
}

func (e *StrangerError) Error() string {
	return fmt.Sprintf("user %d listens there, who is neither root nor you,"+
		" and the folder does not prove that the socket is theirs:"+
		" nothing was sent; to ask it nevertheless, run the command as that user", e.UID)
}

// An owner is the owner of a folder. The field open says whether other users can write in the folder.
type owner struct {
	uid  uint32
	open bool
}

// trusts reports whether a process of user peer may answer a client of user self. The socket is in folder, and parent
// contains folder.
func (t Trust) trusts(peer, self uint32, folder, parent owner) bool {
	const root = 0
	if peer == root || peer == self {
		return true
	}
	given := !parent.open && (parent.uid == root || parent.uid == self)
	return peer == folder.uid && (t == Chosen || given)
}

// checkPeer returns an error if the process that listens at path, at the other end of conn, is not trusted. On systems
// that cannot name the user of a peer, every process is trusted.
func (t Trust) checkPeer(conn net.Conn, path string) error {
	peer, self, err := peerUser(conn)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot find out which user's process answers there: %w", err)
	}
	folder, parent, err := ownersOf(path)
	if err != nil {
		return fmt.Errorf("cannot find out who owns the socket's folder: %w", err)
	}
	if !t.trusts(peer, self, folder, parent) {
		return &StrangerError{Path: path, UID: peer}
	}
	return nil
}
