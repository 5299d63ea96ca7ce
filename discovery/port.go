package discovery

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// portNamed returns the port of s with the given name. An empty name means the default port: that of the tagged
// address, if it has one. The error is a *noPortError.
func (s *entryService) portNamed(name string) (int, error) {
	if name == "" {
		return cmp.Or(s.Tagged.Port, s.Port), nil
	}
	i := slices.IndexFunc(s.Ports, func(p entryPort) bool { return p.Name == name })
	if i < 0 {
		return 0, &noPortError{service: s, name: name}
	}
	return s.Ports[i].Port, nil
}

// A noPortError is the error for an instance that has no port of the name that a query asks for.
type noPortError struct {
	service *entryService
	name    string
}

func (e *noPortError) Error() string {
	s := e.service
	switch {
	case s.SocketPath != "":
		return fmt.Sprintf("it has no port %q: it listens on a Unix socket", e.name)
	case len(s.Ports) == 0:
		return fmt.Sprintf("it has no port %q: it registers no ports by name", e.name)
	}
	var names []string
	for _, p := range s.Ports[:min(len(s.Ports), maxPortsShown)] {
		names = append(names, fmt.Sprintf("%q", cut(p.Name, maxWord)))
	}
	text := fmt.Sprintf("it has no port %q, but %s", e.name, strings.Join(names, ", "))
	if more := len(s.Ports) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// maxPortsShown is how many names of ports a text lists.
const maxPortsShown = 8
