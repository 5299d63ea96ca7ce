// Command lictor keeps each service of a Consul catalog on a stable local port. Run lictor -help for its use.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/cli"

	"github.com/lictor-proxy/lictor/config"
	_ "github.com/lictor-proxy/lictor/internal/needs"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// Exit codes. The text of lictor -help documents them.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNobody   = 3
	exitRefusing = 4
)

func main() { os.Exit(Main(os.Args[1:], console{in: os.Stdin, out: os.Stdout, err: os.Stderr})) }

// A console has the streams of a command. The result of a command goes to out, everything else to err.
type console struct {
	in       io.Reader
	out, err io.Writer
}

// Main runs the command line in args, without the program's name, and returns the exit code.
func Main(args []string, c console) int {
	if len(args) > 0 && args[0] == "help" {
		args = append(args[1:], "-help")
	}
	if with, is := installing(args); is && os.Getenv("COMP_LINE") == "" {
		return c.autocomplete(with)
	}
	app := &cli.CLI{
		Name:         "lictor",
		Version:      newBuild().String(),
		Args:         args,
		Commands:     commands(c),
		HelpFunc:     func(map[string]cli.CommandFactory) string { return strings.TrimSuffix(help, "\n") },
		HelpWriter:   c.out,
		ErrorWriter:  c.err,
		Autocomplete: true,
	}
	if os.Getenv("COMP_LINE") == "" {
		if err := misuse(app); err != nil {
			return c.usage("", err)
		}
	}
	code, err := app.Run()
	if err != nil {
		fmt.Fprintf(c.err, "lictor: %s\n", visible.Lines(err.Error()))
	}
	if code == 127 { // package cli returns 127 for an unknown command
		return exitUsage
	}
	return code
}

func commands(c console) map[string]cli.CommandFactory {
	factory := func(command cli.Command) cli.CommandFactory {
		return func() (cli.Command, error) { return command, nil }
	}
	// These commands print text from a server, from Consul or from a file. The writer makes control characters visible.
	foreign := c
	foreign.out = visible.NewWriter(c.out)
	return map[string]cli.CommandFactory{
		"run":         factory(newRunCommand(c)),
		"forward":     factory(newForwardCommand(c)),
		"plan":        factory(newPlanCommand(foreign)),
		"status":      factory(newStatusCommand(foreign)),
		"top":         factory(newTopCommand(c)),
		"explain":     factory(newExplainCommand(foreign)),
		"events":      factory(newEventsCommand(foreign)),
		"connections": factory(newConnectionsCommand(foreign)),
		"drain":       factory(newDrainCommand(foreign)),
		"undrain":     factory(newUndrainCommand(foreign)),
		"reload":      factory(newReloadCommand(foreign)),
		"upgrade":     factory(newUpgradeCommand(foreign)),
		"validate":    factory(newValidateCommand(foreign)),
		"fmt":         factory(&fmtCommand{console: c}),
		"completion":  factory(&completionCommand{console: c}),
		"version":     factory(&versionCommand{console: c}),
	}
}

// misuse returns an error if the arguments before the command are wrong. Without misuse, package cli would print the
// whole help for them.
func misuse(app *cli.CLI) error {
	name := app.Subcommand()
	if _, ok := app.Commands[name]; ok && name != "" {
		if i := slices.Index(app.Args, name); i > 0 && !app.IsHelp() {
			return fmt.Errorf("%s must come after the command: write it after %q", app.Args[0], name)
		}
		return nil
	}
	switch {
	case name != "":
		return fmt.Errorf("there is no command %q%s", name, suggestion(name, commandNames()))
	case app.IsHelp() || app.IsVersion() || len(app.Args) == 0:
		return nil
	}
	return fmt.Errorf("%q is neither a command nor an option of lictor", app.Args[0])
}

func commandNames() []string {
	return []string{"run", "status", "top", "explain", "connections", "events", "drain", "undrain", "reload", "upgrade",
		"forward", "plan", "validate", "fmt", "completion", "version"}
}

func suggestion(given string, names []string) string {
	if name := config.Nearest(given, names); name != "" {
		return fmt.Sprintf("; did you mean %q?", name)
	}
	return ""
}

// usage prints two lines about wrong usage of a command and returns the exit code. An empty command means lictor
// itself.
func (c console) usage(command string, err error) int {
	name := strings.TrimSpace("lictor " + command)
	fmt.Fprintf(c.err, "%s: %s\nRun \"%s -help\" for help.\n", name, visible.Lines(err.Error()), name)
	return exitUsage
}

// parse parses flags and returns the other arguments. Flags may be before, between and after other arguments. After
// "--" everything is an argument. An error means wrong usage.
func parse(flags *flag.FlagSet, args []string) (rest []string, err error) {
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	for {
		if err := flags.Parse(args); err != nil {
			return nil, flagError(flags, err)
		}
		left := flags.Args()
		if len(left) == 0 {
			return rest, nil
		}
		if taken := len(args) - len(left); taken > 0 && args[taken-1] == "--" {
			return append(rest, left...), nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}

// flagError adds a suggestion to the error of package flag for an unknown flag. It returns other errors unchanged.
func flagError(flags *flag.FlagSet, err error) error {
	name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !unknown {
		return err
	}
	var names []string
	flags.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	if near := config.Nearest(name, names); near != "" {
		return fmt.Errorf("there is no option -%s; did you mean -%s?", name, near)
	}
	return fmt.Errorf("there is no option -%s", name)
}

var errNoPath = errors.New("no PATH given: name a file, or a directory of *.hcl files")
