package admin

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"time"
)

// userTime limits how long a request waits for the name of a user, which may come from a directory server.
const userTime = time.Second

// userOf returns the operator who sent r, for events and logs. Over a Unix socket, that is the name of the user whose
// process sent r, as the kernel reports it. If that user is root, the request may say for whom it acts. Over TCP the
// user is only claimed, in the body or with the token, so userOf adds the address. A request that only a browser sends
// is from the page. userOf returns an empty name if nothing is known.
func (s *Server) userOf(r *http.Request, claimed string) string {
	c := connOf(r)
	if c == nil {
		return claimed
	}
	if c.peer == (peer{}) {
		uid, _, err := peerUser(c.Conn)
		if err != nil {
			return claimed
		}
		return actingFor(s.userName(r.Context(), uid), claimed, uid == 0)
	}
	if claimed == "" {
		claimed, _, _ = r.BasicAuth()
		if checkText("user", claimed, maxUser) != nil {
			claimed = ""
		}
	}
	if claimed == "" && r.Header.Get("Origin") != "" {
		claimed = "page"
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	if claimed == "" {
		return host
	}
	return claimed + " from " + host
}

// actingFor joins the name of the process's user and the name that the process claims.
func actingFor(name, claimed string, isRoot bool) string {
	if !isRoot || claimed == "" || claimed == name {
		return name
	}
	return fmt.Sprintf("%s as %s", claimed, name)
}

// userName returns the name of a user. If the name cannot be found soon, userName returns the user ID, such as "user
// 1000". At most one lookup is under way, however long the system takes.
func (s *Server) userName(ctx context.Context, uid uint32) string {
	without := fmt.Sprintf("user %d", uid)
	ctx, cancel := context.WithTimeout(ctx, userTime)
	defer cancel()
	select {
	case s.naming <- struct{}{}:
	case <-ctx.Done():
		return without
	}
	found := make(chan string, 1)
	go s.lookUpUser(uid, found)
	select {
	case name := <-found:
		if name != "" {
			return name
		}
	case <-ctx.Done():
	}
	return without
}

// lookUpUser sends the name of a user, or an empty text, and then allows the next lookup. Nothing waits for lookUpUser,
// because the system may hang.
func (s *Server) lookUpUser(uid uint32, found chan<- string) {
	defer func() { <-s.naming }()
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil || checkText("user", u.Username, maxUser) != nil {
		found <- ""
		return
	}
	found <- u.Username
}
