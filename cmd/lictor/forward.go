package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/posener/complete"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/daemon"
)

type forwardCommand struct {
	console
	consul string
	tags   pathList
}

func newForwardCommand(c console) *forwardCommand { return &forwardCommand{console: c} }

func (c *forwardCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("forward", flag.ContinueOnError)
	f.StringVar(&c.consul, "consul", "", "")
	f.Var(&c.tags, "tag", "")
	return f
}

func (c *forwardCommand) Synopsis() string {
	return "Open local ports for services in Consul, without a configuration"
}

func (c *forwardCommand) AutocompleteFlags() complete.Flags {
	return completeFlags(c.flags(), nil)
}

func (c *forwardCommand) AutocompleteArgs() complete.Predictor { return complete.PredictNothing }

func (c *forwardCommand) Help() string {
	return `Usage: lictor forward [options] SERVICE[:PORT][/udp]...

  Opens a port of 127.0.0.1 for each SERVICE in Consul, without a configuration,
  until Ctrl-C. Each connection goes to a healthy instance, and a line on stderr
  shows the traffic.

  Without PORT, forward chooses a port and prints it. The same service gets the
  same port next time, unless another program uses it.

  Consul's usual environment variables say how to reach Consul.

Options:

  -consul ADDRESS    Address of Consul. Overrides $CONSUL_HTTP_ADDR.
  -tag TAG           Only instances with this tag. May be repeated.

Exit codes:

  0    The command has ended after Ctrl-C.
  1    A port cannot be opened, or an argument is invalid.
  2    Wrong usage.

Examples:

    $ lictor forward web:9000 dns:5300/udp
    $ lictor forward postgres -tag primary
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

	var output *daemon.Output
	c.console, output = c.queued()
	defer output.Close()
	v := newBuild()
	err = daemon.Run(daemon.Options{
		Config: cfg, AwaitEndpoints: true, Output: output, Version: v.Version, Revision: v.Revision,
		Started: func(d *daemon.Daemon) { d.Go(func(ctx context.Context) { c.live(ctx, d) }) },
	}, signals)
	return c.ended(err, diags, false)
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
	fmt.Fprintf(&b, "log_level = \"warn\"\nshutdown_grace = \"0s\"\n")
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
			"    tags    = [%s]\n  }\n}\n",
			config.Quote(name), f.port, f.protocol, config.Quote(f.service), strings.Join(tags, ", "))
	}
	return []byte(b.String())
}

// live prints a line about the traffic whenever it has changed, until ctx ends. On a terminal each line replaces the
// last one.
func (c *forwardCommand) live(ctx context.Context, d *daemon.Daemon) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			if isTerminal(c.err) && last != "" {
				fmt.Fprintln(c.err)
			}
			return
		case <-tick.C:
		}
		line := trafficLine(d.Traffic())
		if line == last {
			continue
		}
		last = line
		if isTerminal(c.err) {
			fmt.Fprintf(c.err, "\r\x1b[K%s", line)
		} else {
			fmt.Fprintln(c.err, line)
		}
	}
}

// trafficLine returns a line such as "web: 2 open of 17, 3.1 KiB up, 1.2 MiB down".
func trafficLine(all []daemon.Traffic) string {
	var parts []string
	for _, s := range all {
		part := fmt.Sprintf("%s: %d open of %d, %s up, %s down", s.Service, s.Open, s.Total,
			bytesText(s.Up), bytesText(s.Down))
		if s.Refused > 0 {
			part += fmt.Sprintf(", %d refused", s.Refused)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
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
