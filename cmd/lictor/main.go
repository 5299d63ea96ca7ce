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

// Main runs the command line in args, without the program's name, and returns the exit code. If a shell asks for
// completions of a line in $COMP_LINE, Main prints them instead.
func Main(args []string, c console) int {
	if line := os.Getenv("COMP_LINE"); line != "" {
		return c.complete(beforeCursor(line, os.Getenv("COMP_POINT")))
	}
	if with, is := installing(args); is {
		return c.autocomplete(with)
	}
	asked := newInvocation(args)
	all := commands(c)
	command, known := all[asked.command]
	switch {
	case len(args) == 0:
		fmt.Fprint(c.err, help(all))
		return exitUsage
	case asked.command == "" && asked.version:
		return c.printText("", newBuild().String()+"\n")
	case asked.command == "" && asked.help:
		return c.printText("", help(all))
	case asked.command == "":
		return c.usage("", fmt.Errorf("%q is neither a command nor an option of lictor", args[0]))
	case !known:
		return c.usage("", fmt.Errorf("there is no command %q%s", asked.command,
			suggestion(asked.command, commandNames())))
	case asked.help:
		return c.printText(asked.command, command.Help())
	case asked.early:
		return c.usage("", fmt.Errorf("%s must come after the command: write it after %q", args[0], asked.command))
	}
	return command.Run(asked.args)
}

// An invocation is what the arguments of lictor ask for.
type invocation struct {
	command string   // the first argument that is no option; "" if there is none
	args    []string // the arguments after the command
	help    bool     // an option asks for help, before or after the command
	version bool     // an option before the command asks for the version
	early   bool     // there are options before the command
}

// newInvocation sorts the arguments of lictor. After "--" it looks for no option and no command.
func newInvocation(args []string) (i invocation) {
	if len(args) > 0 && args[0] == "help" {
		args, i.help = args[1:], true
	}
	for n, arg := range args {
		switch {
		case arg == "--":
			return i
		case slices.Contains([]string{"-h", "-help", "--help"}, arg):
			i.help = true
		case i.command != "":
		case slices.Contains([]string{"-v", "-version", "--version"}, arg):
			i.version = true
		case arg != "" && arg[0] != '-':
			i.command, i.args, i.early = arg, args[n+1:], n > 0
		}
	}
	return i
}

// A command is one of the commands of lictor. The exported methods are those of a command in hashicorp/cli.
type command interface {
	Synopsis() string // its line in the list of commands
	Help() string
	Run(args []string) int // returns the exit code
	AutocompleteFlags() predictors
	AutocompleteArgs() predictor
	flags() *flag.FlagSet
}

// commands returns all commands by their names.
func commands(c console) map[string]command {
	// These commands print text from a server, from Consul or from a file. The writer makes control characters visible.
	foreign := c
	foreign.out = visible.NewWriter(c.out)
	return map[string]command{
		"run":         newRunCommand(c),
		"forward":     newForwardCommand(c),
		"plan":        newPlanCommand(foreign),
		"status":      newStatusCommand(foreign),
		"top":         newTopCommand(c),
		"explain":     newExplainCommand(foreign),
		"events":      newEventsCommand(foreign),
		"mesh":        newMeshCommand(foreign),
		"connections": newConnectionsCommand(foreign),
		"drain":       newDrainCommand(foreign),
		"undrain":     newUndrainCommand(foreign),
		"reload":      newReloadCommand(foreign),
		"upgrade":     newUpgradeCommand(foreign),
		"validate":    newValidateCommand(foreign),
		"fmt":         &fmtCommand{console: c},
		"completion":  &completionCommand{console: c},
		"version":     &versionCommand{console: c},
	}
}

// commandNames returns the names of all commands, in the order of the help.
func commandNames() []string {
	return []string{"run", "forward", "plan", "status", "top", "explain", "connections", "events", "mesh", "drain",
		"undrain", "reload", "upgrade", "validate", "fmt", "completion", "version"}
}

func suggestion(given string, names []string) string {
	if name := config.Nearest(given, names); name != "" {
		return fmt.Sprintf("; did you mean %q?", name)
	}
	return ""
}

// printText writes the result of a command to stdout and returns the exit code. An empty command means lictor itself.
func (c console) printText(command, text string) int {
	if _, err := io.WriteString(c.out, text); err != nil {
		fmt.Fprintf(c.err, "%s: %v\n", strings.TrimSpace("lictor "+command), err)
		return exitFailed
	}
	return exitOK
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
