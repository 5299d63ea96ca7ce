package unixsocket

import (
	"fmt"
	"os/user"
	"strconv"
)

// ids returns the numbers of the owner and the group; -1 for one that is to stay.
func (a Access) ids() (uid, gid int, err error) {
	uid, err = number(a.Owner, func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return -1, -1, fmt.Errorf("owner %q: %w", a.Owner, err)
	}
	gid, err = number(a.Group, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	if err != nil {
		return -1, -1, fmt.Errorf("group %q: %w", a.Group, err)
	}
	return uid, gid, nil
}

// number returns the number that name is or that lookUp finds for it, and -1 for an empty name.
func number(name string, lookUp func(name string) (string, error)) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	text, err := lookUp(name)
	if err != nil {
		return -1, err
	}
	return strconv.Atoi(text)
}
