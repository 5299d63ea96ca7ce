package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/daemon"
	"github.com/lictor-proxy/lictor/internal/visible"
)

type forwardCommand struct {
	console
	consul, datacenter string
	tags               pathList
	mesh               bool
	as                 string

	footer *footer // where the traffic is shown; nil if stderr is not a terminal
}

func newForwardCommand(c console) *forwardCommand { return &forwardCommand{console: c} }

func (c *forwardCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("forward", flag.ContinueOnError)
	f.StringVar(&c.consul, "consul", "", "")
	f.StringVar(&c.datacenter, "datacenter", "", "")
	f.Var(&c.tags, "tag", "")
	f.BoolVar(&c.mesh, "mesh", false, "")
	f.StringVar(&c.as, "as", "", "")
	return f
}

func (c *forwardCommand) Synopsis() string {
	return "Open local ports for services in Consul, without a configuration"
}

func (c *forwardCommand) AutocompleteFlags() predictors {
	return completeFlags(c.flags(), nil)
}

// AutocompleteArgs completes the names of services that Consul knows.
func (c *forwardCommand) AutocompleteArgs() predictor {
	return func(line typed) []string {
		if _, err := parse(c.flags(), line.words); err != nil {
			return nil
		}
		return within(completionTime, func(ctx context.Context) []string {
			c.mesh = false // the names are the same, and -as may still be missing
			cfg, _ := config.Parse("lictor forward", c.configuration([]forward{{service: "any"}}), config.Options{})
			if cfg == nil {
				return nil
			}
			catalog, err := daemon.ReadCatalog(ctx, cfg, c.datacenter)
			if err != nil {
				return nil
			}
			return slices.Sorted(maps.Keys(catalog.Tags))
		})
	}
}

func (c *forwardCommand) Help() string {
	return `Usage: lictor forward [options] SERVICE[:PORT][/udp]...

  Opens a port of 127.0.0.1 for each SERVICE in Consul, without a configuration,
  until Ctrl-C. Each connection goes to a healthy instance. A line for each
  SERVICE on stderr shows the traffic. If Consul does not know a SERVICE, a line
  says so and names a similar one; forward then waits for the SERVICE. With
  -mesh there is no such line.

  Without PORT, forward chooses a port and prints it. The same service gets the
  same port next time, unless another program uses it.

  Consul's usual environment variables say how to reach Consul.

Options:

  -consul ADDRESS    Address of Consul. Overrides $CONSUL_HTTP_ADDR.
  -datacenter NAME   Datacenter of the instances. Default: that of the agent.
  -tag TAG           Only instances with this tag. May be repeated; an instance
                     must have all tags.
  -mesh              Reach the services through Consul's service mesh, over
                     mutual TLS. Needs -as.
  -as NAME           With -mesh: the service in Consul as which instances see
                     you. The token needs service:write for NAME.

Exit codes:

  0    The command has ended after Ctrl-C.
  1    A port cannot be opened, or an argument is invalid.
  2    Wrong usage.

Examples:

    $ lictor forward web:9000 dns:5300/udp
    $ lictor forward postgres -tag primary -datacenter dc2
    $ lictor forward -mesh -as web billing:9000
`
}

func (c *forwardCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	if err == nil && len(rest) == 0 {
		err = errors.New("no service given: SERVICE, SERVICE:PORT or SERVICE:PORT/udp")
	}
	var forwards []forward
	for _, arg := range rest {
		f, problem := parseForward(arg)
		if err == nil {
			err = problem
		}
		forwards = append(forwards, f)
	}
	if err == nil {
		err = c.meshUsage(forwards)
	}
	if err != nil {
		return c.usage("forward", err)
	}
	cfg, diags := config.Parse("lictor forward", c.configuration(forwards), config.Options{})
	if cfg == nil {
		_ = diags.WriteText(c.err, isTerminal(c.err))
		return exitFailed
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	if f := terminalOf(c.err); f != nil && !isDumb() {
		c.footer = &footer{terminal: f}
		c.err = c.footer
	}
	var output *daemon.Output
	c.console, output = c.queued()
	defer output.Close()
	v := newBuild()
	err = daemon.Run(daemon.Options{
		Config: cfg, AwaitEndpoints: true, Output: output, Version: v.Version, Revision: v.Revision,
		Started: func(d *daemon.Daemon) {
			d.Go(func(ctx context.Context) { c.warn(ctx, cfg) })
			d.Go(func(ctx context.Context) { c.live(ctx, d) })
		},
	}, signals)
	return c.ended(err, diags, false)
}

// meshUsage returns what is wrong with the options for the mesh, or nil.
func (c *forwardCommand) meshUsage(forwards []forward) error {
	switch {
	case c.as != "" && !c.mesh:
		return errors.New("-as is for -mesh only")
	case c.mesh && c.as == "":
		return errors.New("-mesh needs -as NAME, the service in Consul as which clients reach the others")
	case c.mesh && slices.ContainsFunc(forwards, func(f forward) bool { return f.protocol == config.UDP }):
		return errors.New("-mesh is for TCP: Consul's service mesh speaks TLS over TCP only")
	}
	return nil
}

// A forward is one SERVICE argument of the command.
type forward struct {
	service  string
	port     uint16
	protocol config.Protocol
}

// parseForward parses SERVICE[:PORT][/udp]. Without PORT it chooses a free port.
func parseForward(arg string) (f forward, err error) {
	text, protocol, given := strings.Cut(arg, "/")
	if given {
		if err := f.protocol.UnmarshalText([]byte(protocol)); err != nil {
			return f, fmt.Errorf("%q: write /udp, /tcp or nothing after the port", arg)
		}
	}
	var port string
	f.service, port, given = strings.Cut(text, ":")
	if f.service == "" {
		return f, fmt.Errorf("%q has no service name: write SERVICE, SERVICE:PORT or SERVICE:PORT/udp", arg)
	}
	if !given {
		f.port = choosePort(f)
		return f, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return f, fmt.Errorf("%q: %q is not a port; write a number from 1 to 65535", arg, port)
	}
	f.port = uint16(n)
	return f, nil
}

// The range of chosen ports is above the ports of well-known servers and below those of outgoing connections.
const (
	firstChoice = 20000
	choices     = 10000
)

// choosePort returns a free port. A service gets the same port each time, unless another program uses that port.
func choosePort(f forward) uint16 {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%s", f.service, f.protocol)
	start := h.Sum32()
	for i := range uint32(100) {
		port := uint16(firstChoice + (start+i*i)%choices)
		if isFree(f.protocol, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)) {
			return port
		}
	}
	return 0 // the kernel chooses
}

func isFree(p config.Protocol, addr netip.AddrPort) bool {
	if p == config.UDP {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
		if err != nil {
			return false
		}
		return c.Close() == nil
	}
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// configuration returns a configuration for the command's arguments, as text. It is then validated like a file.
func (c *forwardCommand) configuration(forwards []forward) []byte {
	var b strings.Builder
	// The commands must find a running daemon, and not this process.
	fmt.Fprintf(&b, "log_level = \"warn\"\nshutdown_grace = \"0s\"\nadmin {\n  listen = \"off\"\n}\n")
	if c.consul != "" {
		fmt.Fprintf(&b, "consul {\n  address = %s\n}\n", config.Quote(c.consul))
	}
	names := map[string]int{}
	for _, f := range forwards {
		name := f.service
		if names[f.service]++; names[f.service] > 1 {
			name = fmt.Sprintf("%s-%d", f.service, names[f.service])
		}
		var tags []string
		for _, tag := range c.tags {
			tags = append(tags, config.Quote(tag))
		}
		fmt.Fprintf(&b, "service %s {\n  listen   = %d\n  protocol = %q\n  consul {\n    service = %s\n"+
			"    tags    = [%s]\n",
			config.Quote(name), f.port, f.protocol, config.Quote(f.service), strings.Join(tags, ", "))
		if c.datacenter != "" {
			fmt.Fprintf(&b, "    datacenter = %s\n", config.Quote(c.datacenter))
		}
		fmt.Fprint(&b, "  }\n")
		if c.mesh {
			fmt.Fprintf(&b, "  mesh { as = %s }\n", config.Quote(c.as))
		}
		fmt.Fprint(&b, "}\n")
	}
	return []byte(b.String())
}

// warn prints a line for each service that Consul does not know, or of which no instance has the tags. It prints
// nothing if Consul does not answer, because the daemon logs that. It prints nothing for services of the mesh: their
// names need not be in the catalog, which has those of their sidecars.
func (c *forwardCommand) warn(ctx context.Context, cfg *config.Config) {
	if c.mesh {
		return
	}
	catalog, err := daemon.ReadCatalog(ctx, cfg, c.datacenter)
	if err != nil {
		return
	}
	seen := map[string]bool{}
	for _, s := range cfg.Services {
		if text := unknown(s.Consul, catalog); text != "" && !seen[text] {
			seen[text] = true
			fmt.Fprintf(c.err, "lictor forward: %s\n", visible.Text(text))
		}
	}
}

// unknown returns a sentence about a query for a service or a tag that Consul does not have, or "".
func unknown(q *config.ConsulQuery, catalog *daemon.Catalog) string {
	where := ""
	if q.Datacenter != "" {
		where = fmt.Sprintf(" of datacenter %q", q.Datacenter)
	}
	text := ""
	tags, found := catalog.Tags[q.Service]
	if !found {
		text = fmt.Sprintf("there is no service %q in Consul%s", q.Service, where) +
			suggestion(q.Service, slices.Sorted(maps.Keys(catalog.Tags)))
	}
	for _, tag := range q.Tags {
		if found && !slices.Contains(tags, tag) {
			text = fmt.Sprintf("no instance of service %q in Consul%s has the tag %q", q.Service, where, tag) +
				suggestion(tag, tags)
		}
	}
	if text != "" && catalog.Filtered {
		text += "; the token may not see all services"
	}
	return text
}

// live shows the traffic of each service until ctx ends: in the footer, or with a line whenever it has changed.
func (c *forwardCommand) live(ctx context.Context, d *daemon.Daemon) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last []string
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		lines := trafficLines(d.Traffic())
		switch {
		case slices.Equal(lines, last):
		case c.footer != nil:
			c.footer.show(lines)
			fmt.Fprint(c.err, redraw)
		default:
			for i, line := range lines { // the services are the same each time
				if last == nil || line != last[i] {
					fmt.Fprintln(c.err, line)
				}
			}
		}
		last = lines
	}
}

// trafficLines returns a line such as "web: 2 open of 17, 3.1 KiB up, 1.2 MiB down" for each service.
func trafficLines(all []daemon.Traffic) (lines []string) {
	for _, s := range all {
		line := fmt.Sprintf("%s: %d open of %d, %s up, %s down", visible.Text(s.Service), s.Open, s.Total,
			bytesText(s.Up), bytesText(s.Down))
		if s.Refused > 0 {
			line += fmt.Sprintf(", %d refused", s.Refused)
		}
		lines = append(lines, line)
	}
	return lines
}

// bytesText returns n bytes in the largest fitting unit, such as "3.1 KiB".
func bytesText(n int64) string {
	const units = "KMGTPE"
	value, unit := float64(n), -1
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit < 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
